"""Formats of weight files other than safetensors.

pickled       files of torch.save, without running pickled code
sharded       what the processes of a job wrote: torch.distributed.checkpoint, a file of each rank
foreign       files that torch did not write, which are refused
gguf          GGUF files, dequantized by their own package
"""
