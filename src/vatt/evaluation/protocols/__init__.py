"""How a model is evaluated: one module a protocol, named as `protocol` in its result file."""
