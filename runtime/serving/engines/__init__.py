"""Engines: processes that hold a pipeline each, and what the front knows of them.

replicas        the arguments of each engine
hosts           stages on several hosts: the processes that follow the engine
supervisor      an engine's process: started, watched, started again
messages        what the two processes tell each other
stopped         processes that a signal has stopped
engine_process  the other process: the pipeline behind a socket
follower        a process of another host's stages
observation     how busy each stage is, what waits before it
tensors         tensors of torch <-> arrays; this and the three files before alone import torch
"""
