"""The options of a compilation, which the command, `compile_model` and `auto_partition` take alike.

The files:

    options   every option, with its flag and its help
    kinds     the values that options take, and how wrong ones are refused
    workload  the sizes of calls that a plan is for, as a text
    scoped    options of one pass: split-stages{time-limit=20}
"""
