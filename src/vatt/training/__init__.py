"""The training loop and its parts: ranks, optimiser, targets, checkpoints, log; no modality."""
