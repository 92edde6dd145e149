"""Many runs as one question: what is varied, which points are tried, what came out, and how sure that is."""
