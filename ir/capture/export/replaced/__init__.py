"""Code of torch's own that reads or computes otherwise while a model is exported.

padding           nn.TransformerEncoder under a padding mask, as in inference
recurrent_layers  an LSTM, GRU or RNN, recorded as one operator over any number of steps
positions         writes at positions that only a call knows
distributions     torch.distributions, which check their arguments by values
scripted          functions under torch.jit.script, as they are written
"""
