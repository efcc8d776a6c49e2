"""The network (§3): tokens, Transformer, heads, VATT itself, classifiers, model folders."""
