"""Local web pages over run folders; reading only, but for the lock's drawing. Needs no torch."""
