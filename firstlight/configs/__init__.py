"""The shipped experiments: data, not code."""
