"""Requests over HTTP -> a pipeline in a process of its own -> answers, and nothing lost.

flags           of the command line
listening       the process that listens, signals
doors           around every request: token, id, log, count
app             routes, limits, statuses
oip             the Open Inference Protocol: requests and answers as JSON and bytes
interface       what the model takes and returns, and which requests may share a batch
admission       the requests that wait and run; what becomes of them when a batch or the engine fails
supervisor      the engine's process: started, watched, started again
frames          messages between the two processes
arrays          tensors as bytes
engine_process  the other process: the pipeline behind a socket; of these alone it imports torch
metrics         numbers for Prometheus
"""
