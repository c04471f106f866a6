"""Functions of pointwise operators that run as one kernel on GPUs, with the bits of torch's own kernels.

fused_kernel   the decorator, whose file artifacts have beside their stages: a kernel where its bits are the function's
checked_bits   the comparison of a kernel with its function: what they make of drawn numbers, bit for bit
kernel_source  the source of a kernel in Triton
kernel_nodes   the nodes of graphs that can be a kernel
row_sums       the order in which torch adds up a row for its mean
background     a thread that compiles kernels while functions run as they are
recorded       the operators that a function runs
"""
