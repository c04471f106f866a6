"""Names in a stage file.

local_names   names of local variables
file_scope    names that all functions of a file share
module_variables  variables for the modules of a loop, and for those with long paths
scope         names in one function: values as expressions
"""
