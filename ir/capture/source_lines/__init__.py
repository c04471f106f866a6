"""Places in the user's source from which nodes come.

where         module path and source line of a node
stack_traces  the lines of the forwards that lead to a node, as torch records it
statements    the statement on a source line, with the parameters and copies of its function
variables     the variables of the user's functions that hold a node's results
"""
