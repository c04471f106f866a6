"""Passes that rewrite nodes for fused kernels, torch's own and ours.

In the order in which they run:

    simplify_masks    attention masks that are causal, or mask nothing    (masks/: formulas of masks)
    share_heads       attention over keys and values of fewer heads, in place of repeated ones
    fuse_attention    attention of a decoder that reads pages where they lie  (attention/: how models spell it)
    fuse_quantized    linear layers of a decoder that read quantized weights as they are stored
    fuse_elementwise  pointwise operators that follow each other, as one kernel
"""
