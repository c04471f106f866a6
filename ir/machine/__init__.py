"""Machines that models are cut for.

kinds           kinds of devices, by rule of thumb
cluster         devices and links, as a cluster file describes them
common_devices  the names of the devices whose files come with the package
named           clusters of them, by name and number: "h200x4"
host            the devices of this host
"""
