"""Machines that models are cut for.

kinds     kinds of devices, by rule of thumb
cluster   devices and links, as a cluster file describes them
named     cluster files that come with the package, by name and number: "h200x4"
host      the devices of this host
"""
