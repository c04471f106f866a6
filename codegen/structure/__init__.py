"""A stage as a person would write it: classes for modules that repeat, loops over layers.  No text.

In the order in which a stage meets them:

    reroll           a graph -> a program: the other files in their order
    program          statements, classes and loops as data
    regions          calls by the module that makes them, as a tree
    hoisting         values that the first layer computes for all layers move before it
    forms            equal regions have equal numbers
    shared_classes   one class for regions that differ in which arguments are the same
    partial_modules  modules of which the stage runs only a part
    kernels          nodes that are one kernel become the call of a function
    loops            repeats in a row of statements become loops
    likeness         stages that differ in the numbers of their layers alone
"""
