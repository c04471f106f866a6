"""The plan of a stage file's lines."""
