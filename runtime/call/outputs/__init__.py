"""Outputs that callers ask for.

output_parts  parts of outputs, as callers name them
selection     the outputs of a batch that its callers ask for
"""
