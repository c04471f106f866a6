"""Requests over HTTP -> a pipeline in a process of its own -> answers, and nothing lost.

flags           of the command line
listening       the process that listens, signals
doors           around every request: token, id, log, count
app             routes, limits, statuses
protocols/      the Open Inference Protocol and the OpenAI API: their requests and answers
interface       the inputs and outputs of the model, and which requests may share a batch
admission       the requests that wait and run; what becomes of them when a batch or the engine fails
texts           texts in progress, which begin again where an engine took them with it
supervisor      the engine's process: started, watched, started again
messages        what the two processes tell each other
arrays          tensors as bytes
engine_process  the other process: the pipeline behind a socket; of these files it alone imports torch
metrics         numbers for Prometheus
"""
