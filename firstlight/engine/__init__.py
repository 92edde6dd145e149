"""The training engine: state, step, loop, evaluate, checkpoint, and what a run needs around them."""
