"""Attention over the pages of a decoder's pools, as captured models spell it, for fuse-attention.

In the order in which a model meets them:

    layouts    what each dimension of a tensor counts: which pages, heads and places it is made of
    pages      tensors that hold what the rows of a batch have in a pool
    scores     what scores are made of: queries and keys, a scale, a cap, what is added to them, sinks
    found      the attention of a graph: calls of torch's own, and softmax written out
    visible    the keys that a mask lets each query see, from its formula
"""
