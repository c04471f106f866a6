"""Arguments of a call <-> tensors and sizes.

expressions   sizes computed from the symbols, as the manifest writes them
trees/        the containers of arguments and results, and their form in the manifest
sizes         the sizes of a batch: ranges, guards, and the value of every symbol
counts        values that an input must hold so often
places        places of a value in an input that a second one describes
input_type    the dtype and shape that a tensor must have
layout        the layout of a tensor in memory
adapter_rows  the adapters that the rows of a call choose, by name
inputs        arguments -> tensors and sizes, checked
microbatches  a batch -> microbatches, and their outputs -> those of the batch
untouched     tensors of a batch in flight, which nobody may change
outputs/      the outputs that callers ask for, and parts of them
programs      the program that a call runs, and how it enters and leaves that one
"""
