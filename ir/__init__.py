"""The vocabulary: what a program, a machine and a plan are."""
