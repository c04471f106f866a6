"""GGUF files of llama.cpp, which the package `gguf` reads.

The files:

    file      the fields and tensors of a file, or of all files that one was split into
    settings  what its fields say of the model, in the configuration of transformers
    tensors   its tensors under the names that transformers has for them
    layers    tensors that lie otherwise than in the file: experts, and the attention of Falcon
"""
