"""Programs, jobs and servers that run, and texts for them."""
