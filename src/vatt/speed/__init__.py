"""How fast a training step is: timed in turn, beside its own matrix products and beside peers."""
