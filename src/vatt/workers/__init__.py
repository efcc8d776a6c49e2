"""Many items, several processes: limits for each item, progress, Ray."""
