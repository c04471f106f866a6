"""Linear layers over quantized weights.

Artifacts have them as one file beside their stages, which codegen/text/joined_files.py makes of these:

    linear              the function, which stage files import: a kernel, and plain torch where there is none for it
    dequantized_weight  the weight as numbers, for plain torch
    kernel_choice       which kernels a device has, and which products they take
    launches            grids, tiles and instructions with which kernels are launched
    triton_kernels      those for any GPU
    gluon_kernels       those for NVIDIA's, which copy codes ahead of their turn
    column_order        the orders in which kernels take the columns of x
    languages           triton and its languages, where they are installed

Of graphs:

    linear_operator     the function as an operator
    formulas            the weights that are dequantized in a graph, each with its scheme
"""
