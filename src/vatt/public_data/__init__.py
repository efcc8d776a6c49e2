"""Public data sets by name: official annotation files → labelled files for `vatt prepare`."""
