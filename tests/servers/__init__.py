"""Packages on the real servers, each in an environment of its own: `make servers`."""
