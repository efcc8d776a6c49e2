"""Running a job over many items in several processes, with limits of time and memory; Ray."""
