"""Parts around torch.compile: when it is imported, what it is given of a stage, and where its results are kept.

compiler        torch's compiler, imported while weights are read
compiled_cache  what torch.compile made, kept beside the artifact
early_launch    kernels of torch.compile that begin ahead of their turn
repeated_layers  layers that are alike, compiled once
step_graphs     a pass over the graphs of compiled steps: fewer small kernels
"""
