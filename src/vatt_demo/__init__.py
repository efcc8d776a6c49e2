"""`vatt demo`: clips recorded by a simulated player in ViZDoom, and every command run on them."""
