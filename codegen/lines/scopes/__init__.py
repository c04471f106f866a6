"""Names in a stage file.

local_names   names of local variables
file_scope    names that all functions of a file share
scope         names in one function: values as expressions
"""
