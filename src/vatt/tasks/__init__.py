"""One module per command: its Config and run(config) → Result."""
