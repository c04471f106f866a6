"""The weight of a linear layer as numbers, made of its codes, scales and zeros."""

import torch


def dequantized(codes, scale, zeros, columns, bits, lowest, added, step, wide):
    """The weight `[rows, columns]`, in the dtype that it is computed in: codes of up to 8 bits are exact in any."""
    dtype, rows = torch.float32 if wide else scale.dtype, len(codes)
    weight = (unpacked_bytes(codes, bits) if bits else codes).to(dtype)
    if lowest:
        weight -= lowest
    if zeros is not None:
        zeros = (zeros + added).mT.clone(memory_format=torch.contiguous_format)
        zeros = unpacked_bytes(zeros, bits).mT[:rows].to(dtype)
        weight -= zeros.repeat_interleave(step[1], 1)
    for dim, size in enumerate((rows, columns)):
        if scale.shape[dim] > 1 and step[dim] > 1:
            scale = scale.repeat_interleave(step[dim], dim).narrow(dim, 0, size)
    return weight.mul_(scale.to(dtype))


def unpacked_bytes(words, bits):
    """The codes in words of 32 bits, the lowest bits first: [..., n] -> [..., n * 32 / bits]."""
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=words.device)
    return ((words.contiguous().view(torch.uint8).unsqueeze(-1) >> shifts) & ((1 << bits) - 1)).flatten(-2)
