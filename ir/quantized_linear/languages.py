"""Triton, and those of its languages that are installed, in which the kernels are written."""

# pyright: reportMissingImports=false, reportOptionalMemberAccess=false

try:
    import triton
    import triton.language as tl
except ImportError:  # builds of torch for CPUs come without it
    triton = tl = None
try:  # a language of triton in which kernels say what each thread has
    from triton.experimental import gluon
    from triton.experimental.gluon import language as gl
    from triton.experimental.gluon.language.nvidia.ampere import async_copy, mma_v2

    copy_to_shared = getattr(async_copy, "async_load", None) or async_copy.async_copy_global_to_shared
except ImportError:
    gluon = gl = async_copy = mma_v2 = copy_to_shared = None
try:  # and of Hopper's tensor cores
    from triton.experimental.gluon.language.nvidia import hopper
except ImportError:
    hopper = None
constexpr = int if tl is None else tl.constexpr
