"""Metrics, views and frozen features (§4.2–4.3)."""
