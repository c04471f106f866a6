"""The libraries that quantize checkpoints: how each names its tensors, and the scheme that its settings mean.

methods             the libraries by the name of their method
scaled_codes        codes with scales, as several of them have these
packed_numbers      numbers in words, as several have these
layouts             the stored tensors of a weight, known from its shape and the settings
fp8, modelopt, compressed_tensors, gptq, bitsandbytes, torchao, quark, hqq    one library each
gptq                AWQ and AutoRound, too
"""
