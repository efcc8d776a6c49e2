"""Models for others: ONNX and torch.export files, loaded without PyTorch; hub folders."""
