"""Parts around torch.compile: when it is imported, what it is given of a stage, and where its results are kept.

compiler        torch's compiler, imported while weights are read
compiled_cache  what torch.compile made, kept beside the artifact
compiled_stage  a stage's module under torch.compile, or run by kept graphs
early_launch    kernels of torch.compile that begin ahead of their turn
generated_code  the code of a compiled graph, run without the compiler
kept_graph      a compiled graph in files, for batches of one shape
kept_graphs     those of a stage: which are kept, and found
observed_graph  a compiled graph, observed as it runs
repeated_layers  layers that are alike, compiled once
step_graphs     a pass over the graphs of compiled steps: fewer small kernels
"""
