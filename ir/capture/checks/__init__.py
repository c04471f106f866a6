"""Does a graph compute what its model does?

first_call    run the graph on the example, whose results a call of the model has shown
second_input  run both on other sizes and values
equivalence   run both on fake tensors and compare the operators, which needs no second export
grids         run both on other grids of the same patches
joins         the same where tensors along a dimension of any size are joined at once
values        other values of the kind of an example's
entries       the entries of its dicts in another order
other_answers  record the model again where it answers a question about sizes otherwise, and compare the programs
size_one      the same question for sizes of 1, which torch.export takes to be 2 or more
"""
