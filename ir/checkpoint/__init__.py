"""Tensors on disk, under the names of the model, each read when it is asked for.

layouts       folders -> the files that hold their weights
formats/      formats other than safetensors: torch.save's, torch.distributed.checkpoint's, GGUF
files         files and folders of weights -> the byte range of each tensor
tensors       a tensor on disk as pieces: byte ranges that each fill a box of it
names         the names of a tensor in the model, in its state dict and in a checkpoint
transformers  tensors under the names that the module has for them
own_loading   a module's own code for loading: hooks of its state dict, overridden methods
rearranged    fake tensors that track which pieces they consist of, for transformers' own code to rearrange
mosaic        tensors joined from others that are computed
adapters/     adapters of peft, merged into tensors or kept beside them
ties          weights that a model has under several names, which a checkpoint may hold with other values
quantized/    weights that are stored as several tensors, and dequantized when they are read
checkpoint    a mapping from name to tensor
fitting       the check that it fits the graph
"""
