"""Where the time and the memory of a training go, measured; and what this machine could do at best."""
