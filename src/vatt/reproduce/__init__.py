"""The paper's tables by name: their data sets, recipes and numbers; run, and set side by side."""
