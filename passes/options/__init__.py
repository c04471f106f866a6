"""The options of a compilation, which the command, `compile_model` and `auto_partition` take alike.

The files:

    options      every option, with its flag and its help
    kinds        the values that options take, and how wrong ones are refused
    completions  the texts to which the shell completes a value
    sizes        workloads and shapes of example inputs, as texts
    scoped       options of one pass: split-stages{time-limit=20}
"""
