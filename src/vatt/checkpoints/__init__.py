"""Checkpoints on disk: where a training stands, kept so that it can go on from there."""
