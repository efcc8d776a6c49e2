"""VATT: Transformers for multimodal self-supervised learning from raw video, audio and text."""
