"""Captions of a video: choosing, reading and cleaning them; speech to text where there are none."""
