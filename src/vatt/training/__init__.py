"""The training loop and its parts: ranks, optimiser, targets, log; no modality."""
