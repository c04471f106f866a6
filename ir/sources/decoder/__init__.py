"""A decoder -> a module that continues texts, whose keys, values and states lie in pools.

In the order in which a model meets them:

made         from a source to the source of its step: the call, the pools, what ends a text
pretrained   the step of a transformers model
translator   the step of an encoder-decoder of transformers
own          the step of a module that is written for pages
media        what a model takes beside ids: images and sounds that stand before a text
places       the positions of a prompt with media
step         the module: tokens in, the next token of each row out
rows         the pages and positions of a batch, also for decoders without transformers
sampling     from logits to a token
caches/      transformers' caches and masks, over pools
whole        the step that computes whole texts, for a model without a cache that serves
agreement    the difference between a step's logits in a batch, in chunks, and those of a whole text
terms        what a checkpoint says of its texts: what ends them, how they are sampled
"""
