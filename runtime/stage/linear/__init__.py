"""Linear layers in the form that is fastest on their device.

column_blocks  on a CPU, those of many columns a block of columns at a time, with torch's bits
packed_linear  of a decoder on a CPU, with packed weights
merged_linear  of a decoder, those of one input as one product
few_rows     of a decoder on a GPU, with a kernel for few rows
quantized_layout  of a decoder, stored weights in memory as their kernel reads them
"""
