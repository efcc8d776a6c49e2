"""The format of shards: layout, records, index; reading and writing it; tars made by others."""
