"""Evaluation while a model is trained: measures for the log, the best model; a first layer."""
