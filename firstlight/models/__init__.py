"""One architecture a file; build.py names them."""
