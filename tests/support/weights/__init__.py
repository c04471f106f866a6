"""Weights as checkpoints hold them, made by hand."""
