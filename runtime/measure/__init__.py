"""The speed of this host's devices and links, for a cluster file.

timing        time of a repeated call on a device
contractions  matrix products, convolutions and attention, in each dtype
device        the table of one device: memory, bandwidth, launch, contractions
links         copies between devices
shares        shares of the CPU, measured in as many processes at once
flags         the flags of the command line
__main__      the command line, and the file
"""
