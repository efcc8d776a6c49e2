"""One module for each command: its settings, and `run(config)`, which returns a result."""
