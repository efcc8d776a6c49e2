"""Official TensorFlow checkpoints → model folders, without TensorFlow."""
