"""Several things one after the other in one tensor, where values of an input say which, such as the grids of images.

any_of_many  a tensor that stands for any of several
grids   operators for what transformers makes of grids in Python
towers  the modules of transformers that are given grids, and the functions in whose place these operators are recorded
pieces  tensors split by lengths that are made of grids, recorded as one
prompts  positions of texts among images, which transformers counts in Python
each    tensors of each image, as maps of places, where sizes in pixels are values
each_tensor  code that takes images apart by such sizes, run once for all
padding images that are padding, recorded behind the others
rows    rows chosen by a mask that are put back under it, recorded in their places
"""
