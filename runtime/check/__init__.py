"""Checks that an artifact folder is whole, without the compiler, without torch, and without running a stage.

flow      nodes and values: each node once, each value made before it is read, both ends of each transfer
weights   tensors of the stages: names, shapes, dtypes, bytes, memory
source    stage files: parameters, tables, results, and the nodes on each line
artifact  all of it, and the seal of the manifest, the hashes of files and the terms of the program
"""
