"""Traces of what ran in each stage and when.

traces    recorded while a trace is on: one for each stage, then all together
perfetto  a trace -> the JSON that ui.perfetto.dev opens
"""
