"""Optimizers and learning-rate schedules; build.py names them."""
