"""The command line: a table of commands, and how results and progress look."""
