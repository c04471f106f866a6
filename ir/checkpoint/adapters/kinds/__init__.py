"""Kinds of adapters: the changes that each makes to a layer's tensors, in the order in which peft computes them.

lora       LoRA and what is near it: DoRA, BD-LoRA, AdaLoRA, single tokens
products   other products: LoHa, LoKr, VeRA, PVeRA, RandLoRA, VB-LoRA, Uni-LoRA, GraLoRA, DeLoRA, HiRA
rotations  HRA, OFT, BOFT and RoAd, which turn or reflect
elements   IA3, BEFT, SHiRA, Super, MiSS, FourierFT, WaveFT, C3A; norms that are replaced
functions  GLoRA, OSF, DEFT, PEANuT, which read the weight
known      all of them by name
"""
