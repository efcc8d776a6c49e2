"""Recording the real clips of the demo: a player in ViZDoom, its pictures, sound and captions."""
