"""Files → shards: sources, manifest, one item, a run and its journal."""
