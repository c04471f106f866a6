"""Packages: what another server needs to run an artifact, as files.

flags       of the command line
writing     the templates, filled in
triton_config  what Triton's configuration says of a model
templates/  a folder for each server; {{…}} stands for what an artifact says, NAME in a path for its name
"""
