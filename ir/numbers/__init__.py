"""Plans in numbers: one plan, and those for several machines side by side."""
