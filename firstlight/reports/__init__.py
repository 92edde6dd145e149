"""One HTML file that says what was run and what came of it: a run, a study, or several of them. Needs no network and no torch."""
