"""Local web pages: no torch."""
