"""The next batch: its texts, their pages, its tensors.

scheduler  the choice of texts: admission by free pages, prefill in chunks, preemption
sequences  a text in progress: its tokens, its pages, how much of it the pools hold
pages      pages of the pools: who owns which; pages of prefixes that several texts have in common
batches    texts -> the tensors of a batch
step_inputs  the tensors of steps that follow each other, of which few differ
widths     widths of sources that an encoder's code takes
padding    steps padded to few shapes, which CUDA graphs are recorded for
"""
