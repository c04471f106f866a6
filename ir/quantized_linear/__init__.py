"""Linear layers over quantized weights.

linear           the function, which stage files import: a kernel, and plain torch where there is none for it
linear_operator  the same as an operator of graphs
formulas         the weights of a graph that are dequantized in it, each with its scheme
"""
