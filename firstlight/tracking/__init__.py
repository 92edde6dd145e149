"""The record of a run: its folder, its metric rows, its console."""
