"""Code of torch's own that reads or computes otherwise while a model is exported.

padding           nn.TransformerEncoder under a padding mask, as in inference
recurrent_layers  an LSTM, GRU or RNN, recorded as one operator over any number of steps
distributions     torch.distributions, which check their arguments by values
"""
