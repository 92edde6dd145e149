"""Pictures and tables made from data and from finished runs."""
