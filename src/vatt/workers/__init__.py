"""Several processes: a job over many items, with limits of time and memory; Ray; ranks of a run."""
