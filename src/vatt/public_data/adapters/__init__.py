"""One module for each data set: which files, which fields, which splits, which order."""
