"""What to train: typed settings, read from YAML, base files and overrides."""
