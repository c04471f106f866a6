"""The processes that this one starts for the stages of a pipeline, one for each device, and ends.

choice          whether processes are faster than threads, and how many
message_socket  a connection between two processes of a host, for bytes and file descriptors
blocks          memory that two processes share, of the host or of an accelerator
links/          routes between two processes: tensors go through shared blocks
orders          orders to a process, and its answers
session         the ports of one process, from the first batch to a fault or the end
member          the main of a process that was started
start           starting one: a copy of this one, or a new Python
watch           the processes as their owner sees them, and the thread that hears them
owner           starting, restarting and ending the processes
"""
