"""Python's loops over a size that may change, `for i in range(seq)`, recorded as torch's scan.

found      loops that are entered while a model is exported
names      what the turns of a loop hand on, and what follows reads
rewritten  the code of a function with such a loop as a function of one turn
turns      that function, given to scan
"""
