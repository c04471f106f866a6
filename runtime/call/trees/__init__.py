"""The containers of arguments and results.

classes     the user's own classes, by qualified name
tree_nodes  containers around tensors, sizes and fixed values
tree        their form in the manifest
"""
