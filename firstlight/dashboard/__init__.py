"""Local web pages over run folders. Reading order: server, app, guard, index, then a file a page."""
