"""What a model costs: parameters, FLOPs, memory; the paper's own tables."""
