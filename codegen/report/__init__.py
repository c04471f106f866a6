"""report.html: a plan, and what became of it, on one page."""
