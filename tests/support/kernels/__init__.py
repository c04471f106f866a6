"""Kernels for GPUs, run by torch."""
