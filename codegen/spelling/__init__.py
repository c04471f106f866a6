"""Operators, literals, paths and modules as Python expressions."""
