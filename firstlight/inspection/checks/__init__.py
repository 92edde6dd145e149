"""The checks of a training: each a function that returns one verdict."""
