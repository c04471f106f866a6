"""Partitioners: cut a weighted DAG into pipeline stages, as well as can be proven. No torch in here."""

from passes.partitioners.solve import solve

__all__ = ["solve"]
