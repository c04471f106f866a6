"""What tests share.

checking      the checks of whether what we made of a model computes what the model computes
patience      how long to wait for what must happen
seeds         draws that are the same in each run
source_files  the files of the repository, as syntax
artifacts/    small artifacts made by hand, and stand-ins for graphs of devices
kernels/      kernels for GPUs, run by torch
models/       models and graphs that tests are about, and machines that they are planned for
running/      the command line, jobs and servers, and texts for them
weights/      adapters and packed weights made by hand
"""
