"""Packages: what another server needs to run an artifact, as files.

flags       of the command line
writing     the templates, filled in
templates/  a folder for each server; {{…}} stands for what an artifact says, NAME in a path for its name
"""
