"""Artifacts made by hand, and stand-ins for what devices have."""
