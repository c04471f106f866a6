"""Models that hold quantized weights as they are stored, recorded with plain weights in their place.

formulas     the nodes that make a weight of its stored tensors, captured once for all weights of a kind
stand_ins    plain weights in place of the stored ones, while a model is recorded
written_out  a graph of plain weights -> the graph of the stored ones
"""
