"""The plan of a stage file: names, inlined operands, comments, `del`, loops and classes, as data.  Nothing is printed.

In the order in which a stage meets them:

    stage_file    the names of a stage, its arguments, its results and its tensors
    file_plan     which modules are classes, so that functions and the file stay short
    classes       a program -> a plan for each class
    class_plan    classes and methods as data
    modules       what a class holds: a tree of tensors, modules and lists
    init          the lines of an `__init__`
    forward       the lines of a `forward`
    sizes         the first lines of a `forward`: sizes and the device
    functions     the functions inside a `forward` that `cond` and the like run
    writes        operators that write into a part of a tensor, as one statement
    inlining      calls that stand inside the expression of another
    scopes/       names: of a function's values, of a file
    layout        `del` and comments, added to planned lines
    line          a line as data
"""
