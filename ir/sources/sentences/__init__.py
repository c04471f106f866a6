"""Sentence transformers: the modules behind a transformer that make an embedding of a text.

modules   these modules
folder    the folder that lists them -> a source with them behind the transformer
"""
