"""The shard format: records, index, reading and writing."""
