"""A stage with its weights on a device.

loader       artifact folder -> stages in memory
uninitialized  modules without their first values
stage        a loaded stage: receives tensors, computes, resets its state
added_adapters  adapters behind those that a stage was written with
shared_lock  a readers-writer lock: compiling excludes running
linear/      linear layers in the form that is fastest on their device
speed        torch.compile and CUDA graphs, as options
compiling/   parts around torch.compile
cuda_graphs  a stage as CUDA graphs, one for each shape
helper_kernels  kernels that files beside stages compile while these run without them
rehearsal    a first run on zeros, before the first batch
recurring_shapes  a stage that is recorded once a shape comes again
callers      threads that wait for results: meanwhile stages are recorded beside their code
"""
