"""Adapters as peft saves them: merged into the tensors of a checkpoint, or kept beside them.

adapter   an adapter's folder; the tensors of a model with it merged
settings  its settings, and the kinds of adapters that are not merged
targets   the layers that its settings name
layer     an adapter's tensors for one layer
kinds     the changes that each kind makes to a layer's tensors
low_rank  a weight with the product of two small matrices added to it, read in blocks
retrained a tensor that is computed from the base's and an adapter's, read whole
kept      LoRA beside the weights, for rows to choose from
"""
