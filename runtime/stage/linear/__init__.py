"""Linear layers of a decoder, in the form that is fastest on its device.

packed_linear  on a CPU, with packed weights
merged_linear  those of one input as one product
few_rows     on a GPU, with a kernel for few rows
quantized_layout  stored weights in memory as their kernel reads them
"""
