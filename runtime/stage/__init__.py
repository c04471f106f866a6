"""A stage with its weights on a device.

loader       artifact folder -> stages in memory
stage        a loaded stage: receives tensors, computes, resets its state
added_adapters  adapters behind those that a stage was written with
shared_lock  a readers-writer lock: compiling excludes running
compiled_cache  what torch.compile made, kept beside the artifact
linear/      linear layers of a decoder, in the form that is fastest on its device
speed        torch.compile and CUDA graphs, as options
early_launch  kernels of torch.compile that begin ahead of their turn
repeated_layers  layers that are alike, compiled once
step_graphs  a pass over the graphs of compiled steps: fewer small kernels
cuda_graphs  a stage as CUDA graphs, one for each shape
rehearsal    a first run on zeros, before the first batch
recurring_shapes  a stage that is recorded once a shape comes again
"""
