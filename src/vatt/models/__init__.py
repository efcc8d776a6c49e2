"""The three backbones, or the one, and their heads (§3.1–3.3)."""
