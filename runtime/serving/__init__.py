"""Requests over HTTP -> a pipeline in a process of its own -> answers, and nothing lost.

flags         of the command line
front/        the process that listens: signals, routes, limits, statuses, metrics, the page
protocols/    the Open Inference Protocol and the OpenAI API: their requests and answers
interface     the inputs and outputs of the model
batching      the requests that may run as one batch, padded to one length or as they are
served_model  an artifact that is served, whatever asks: its engines and what they work on
admission     the requests that wait and run; what becomes of them when a batch or an engine fails
texts         texts in progress, which go on in another engine where one took them with it
embeddings    vectors of texts, of what an encoder returns
engines/      the processes that hold pipelines: started, watched, started again; what is said between them and us
arrays        tensors as bytes
adapters/     an artifact within TorchServe, Triton or Ray Serve
packages/     what these, and KServe, need to run an artifact
"""
