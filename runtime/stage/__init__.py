"""A stage with its weights on a device.

loader       artifact folder -> stages in memory
stage        a loaded stage: receives tensors, computes, resets its state
added_adapters  adapters behind those that a stage was written with
shared_lock  a readers-writer lock: compiling excludes running
compiled_cache  what torch.compile made, kept beside the artifact
packed_linear  linear layers of a decoder on a CPU, with packed weights
merged_linear  linear layers of one input as one product
few_rows     linear layers of a decoder on a GPU, with a kernel for few rows
quantized_layout  stored weights in memory as their kernel reads them
speed        torch.compile and CUDA graphs, as options
repeated_layers  layers that are alike, compiled once
cuda_graphs  a stage as CUDA graphs, one for each shape
rehearsal    a first run on zeros, before the first batch
recurring_shapes  a stage that is recorded once a shape comes again
"""
