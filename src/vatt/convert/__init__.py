"""Foreign checkpoints → our model folders: the official TensorFlow ones, without TensorFlow."""
