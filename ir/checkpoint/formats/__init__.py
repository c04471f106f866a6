"""Formats of weight files other than safetensors.

inert         unpickling without running code
pickled       files of torch.save: the tables in them
torch_archive the archives that these are
legacy        those before torch 1.6, which are no archives
sharded       torch.distributed.checkpoint, which the processes of a job write together
ranks         a file of each process of a job
json_text     JSON, which may be nested too deep
foreign       files that torch did not write, which are refused
recognized    folders, settings and names of tensors of other programs
gguf/         GGUF files, dequantized by their own package
"""
