"""The kernels that a device has, and the products that they take."""

# pyright: reportAttributeAccessIssue=false, reportOptionalMemberAccess=false

import warnings

import torch

from ir.quantized_linear.languages import gluon, hopper, triton

MOST_ROWS = 64  # rows of x for which there is a kernel; with more, the weight is dequantized first


def has_kernel(x, codes):
    """Whether the device of x has a kernel for these codes: 8-bit floats are numbers to NVIDIA's GPUs from Ada on."""
    if triton is None or x.device.type == "cpu":
        return False
    return not codes.dtype.is_floating_point or architecture() >= 89


def copies_ahead(codes):
    """Whether the device has the kernels that copy codes into shared memory before their turn, and they take these."""
    if gluon is None or codes.stride(1) != 1 or codes.stride(0) % 16 or codes.data_ptr() % 16:
        return False
    return architecture() >= 80


def architecture():
    """The architecture of one of NVIDIA's GPUs, such as 90; 0 of other devices, which have names for theirs."""
    arch = triton.runtime.driver.active.get_current_target().arch
    return arch if isinstance(arch, int) else 0


def is_row_of_words(x, codes, bits, lowest, step):
    """Whether it is a product for `multiply_row_of_words`, where there are such kernels."""
    (rows, words), columns = codes.shape, x.shape[-1]
    even = rows % 16 == 0 and words % 16 == 0 and step[0] == 1 and (step[1] % 128 == 0 or step[1] >= columns)
    halves = x.dtype in (torch.bfloat16, torch.float16)
    return x.numel() == columns and bits == 4 and even and 0 <= lowest < 64 and halves


def is_row_of_bytes(x, codes, zeros, bits, lowest, step):
    """The same for `multiply_row_of_bytes`."""
    (rows, columns), whole = codes.shape, step[1] >= x.shape[-1]
    even = rows % 4 == 0 and columns % 512 == 0 and (whole or (step[1] % 16 == 0 and step[0] % 4 == 0))
    return x.numel() == columns and not bits and codes.element_size() == 1 and even and zeros is None and not lowest


def are_rows_of_words(x, codes, zeros, bits, lowest, step):
    """The same for `multiply_rows_of_words`, where there are Hopper's tensor cores."""
    (rows, words), columns = codes.shape, x.shape[-1]
    halves = x.dtype in (torch.bfloat16, torch.float16)
    even = rows % 64 == 0 and codes.stride(1) == 1 and (step[1] % 128 == 0 or step[1] >= columns)
    if bits == 4:
        return halves and even and words % 32 == 0 and step[0] == 1 and 0 <= lowest < 64
    floats = codes.dtype == torch.float8_e4m3fn and zeros is None and not lowest
    return halves and even and floats and columns % 128 == 0


def has_wgmma():
    """Whether the device has instructions that multiply a weight in registers by an x in shared memory."""
    return hopper is not None and architecture() == 90


# As torch.compiler.assume_constant_result has it be: torch.compile calls it, and does not look into triton.
vars(has_wgmma).update(_dynamo_marked_constant=True)  # importing that takes seconds


def order_for(x, codes, zeros, bits, lowest, step):
    """The order in which the kernel for x, or for any of its number of rows, takes its columns."""
    one, ours = x.numel() == x.shape[-1], gluon is not None and torch.version.hip is None
    if one and (not bits or (ours and all(is_row_of_words(x, c, bits, lowest, step) for c in codes))):
        return ""
    if ours and not one and all(are_rows_of_words(x, c, zeros, bits, lowest, step) for c in codes) and has_wgmma():
        return "pieces"
    return "words" if bits else ""


def without_copies(error, tall):
    """Have the other kernels take several rows, or any, from now on: the one for several rows needs more of gluon."""
    global gluon, hopper
    gluon, hopper = gluon if tall > 1 else None, None
    which = "the kernel for several rows" if tall > 1 else "the kernels that copy codes ahead"
    warnings.warn(f"triton {triton.__version__} does not compile {which}: {error}", stacklevel=2)
