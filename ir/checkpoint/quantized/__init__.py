"""Quantized weights: several stored tensors each, and the formula that makes one tensor of them.

scheme            what a scheme is: a formula, and where the rows of the weight lie in the stored tensors
scaled            codes times scales: fp8 and int8
scaled_operator   the same as one operator of graphs
packed            integers packed into words: compressed-tensors, GPTQ, AWQ
four_bit_floats   two codes a byte, looked up in a table: FP4, NF4
smoothed          weights of layers whose inputs are scaled first: AWQ and SmoothQuant of ModelOpt and torchao
transposed        weights of transformers' Conv1D, which lie across those that libraries quantize
groups            tensors whose names differ by a suffix -> the groups that are one weight each
libraries/        how each library names the tensors, and which scheme its settings mean
dequantized       a weight that is computed when it is read, a block of rows at a time
kept              modules that hold the stored tensors, and compute the weight at each use
planned           the stored tensors that settings alone give the weights of a model
quantization      what a folder says of its quantization; a table of tensors with the weights dequantized
"""
