"""Scripts that measure what the documents claim; each writes benchmarks/results/<name>.json."""
