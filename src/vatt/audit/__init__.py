"""Checks of prepared folders: shards, videos, duplicates, leaks between splits."""
