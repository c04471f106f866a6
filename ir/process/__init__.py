"""This process: copies of it that share its work, what it patches, and the folder of what it keeps for the next."""
