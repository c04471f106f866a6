"""Devices of this host.

kinds      the kinds of devices, and what torch does not tell of them
placement  stage -> device
streams    streams and events: the order of work on accelerators
copies     asynchronous copies to a device
settings   torch's settings that change what stages compute
clock      time stamps in a device's stream
"""
