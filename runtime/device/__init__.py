"""Devices of this host.

kinds      the kinds of devices, and what torch does not tell of them
placement  stage -> device
streams    streams and events: the order of work on accelerators
copies     asynchronous copies to a device
packs      small tensors in one piece of memory, which one copy brings
ipc        memory and events of accelerators that processes of a host share
settings   torch's settings that change what stages compute
clock      time stamps in a device's stream
"""
