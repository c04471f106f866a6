"""Linear layers over quantized weights.

linear           the function, which stage files import: kernels, and plain torch where there are none for it
linear_operator  the same as an operator of graphs
"""
