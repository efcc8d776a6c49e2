"""Shards → batches: which clips, their augmentation and words, in an order that can be resumed."""
