"""The comparison of a kernel with its function: what they make of drawn numbers, bit for bit."""

import torch

USUAL = 12
BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32}


def same_bits(found, expected):
    """Whether tensors are the same in shapes, strides, dtypes and bits; one that is no number is as good as another."""
    return len(found) == len(expected) and all(map(_same, found, expected))


def _same(a, b):
    if (a.shape, a.stride(), a.dtype) != (b.shape, b.stride(), b.dtype):
        return False
    bits = BITS[a.element_size()]
    return bool(((a.view(bits) == b.view(bits)) | (a.isnan() & b.isnan())).all())


def drawn_like(tensors, device):
    """Lists of tensors of a device like those given: of usual numbers, numbers of all sizes, hard ones, and any bits.

    Those of usual numbers are many: two sums of them in different orders are often the same.
    """
    generator = torch.Generator(device).manual_seed(0)
    for draw in (*[_usual] * USUAL, _of_all_sizes, _hard, _any_bits):
        yield [_filled_like(tensor, draw, generator) for tensor in tensors]


def _filled_like(tensor, draw, generator):
    """A tensor with the shape and the strides of another, over drawn numbers."""
    room = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)) + 1
    return draw(room, tensor.dtype, generator).as_strided(tensor.shape, tensor.stride())


def _usual(count, dtype, generator):
    return torch.randn(count, dtype=dtype, device=generator.device, generator=generator)


def _of_all_sizes(count, dtype, generator):
    exponents = torch.randn(count, device=generator.device, generator=generator) * 8
    return (torch.exp2(exponents) * _usual(count, torch.float32, generator)).to(dtype)


def _hard(count, dtype, generator):
    """Zeros of both signs, infinities, the smallest and the largest numbers, and no numbers, among a few usual ones."""
    ends = torch.finfo(dtype)
    least = ends.tiny * ends.eps  # a subnormal number
    numbers = [0.0, least, ends.tiny / 2, ends.tiny, ends.eps, 0.5, 1.0, 3.0, 88.0, 1 / ends.eps, ends.max, torch.inf]
    known = torch.tensor([*numbers, *(-number for number in numbers), torch.nan], dtype=torch.float64).to(dtype)
    places = torch.randint(len(known), (count,), dtype=torch.int32, device=generator.device, generator=generator)
    return known.to(generator.device)[places]


def _any_bits(count, dtype, generator):
    """Bits of any kind: subnormal, infinite, no numbers."""
    bits = BITS[dtype.itemsize]
    ends = torch.iinfo(bits)
    drawn = torch.randint(ends.min, ends.max + 1, (count,), dtype=bits, device=generator.device, generator=generator)
    return drawn.view(dtype)
