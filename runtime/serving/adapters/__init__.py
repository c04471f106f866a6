"""Adapters: an artifact within another server, which has its own front.

hosted        what they have in common: a served model on a thread of its own
torchserve    a handler for TorchServe
triton        a model for Triton's Python backend
triton_texts  the same for a model that writes texts
ray_serve     an application for Ray Serve
"""
