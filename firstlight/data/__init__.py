"""Where batches come from: one source a file, splits, the loader, augmentation, normalisation."""
