"""From files to shards (`prepare`), and an index for tars made by others (`index-shards`)."""
