"""Captions of a video: found, read, cleaned; or heard by speech to text."""
