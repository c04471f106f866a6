"""transformers' caches and masks, over pools.  Imported where a model of transformers is read.

kept     what each layer of a model keeps of a text
cached   the step of a model with a cache in pools
sourced  the same where an encoder reads a source
layers   caches over pages and slots
masks    masks for rows of different lengths
"""
