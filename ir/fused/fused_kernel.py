"""Functions of pointwise operators that run as one kernel on GPUs, with the bits of torch's own kernels.

A function is plain torch, and runs as it is on CPUs, under torch.compile, where gradients are taken, without Triton,
where its kernel has other bits, and until its kernel is compiled, which a thread does meanwhile.
"""

# pyright: reportMissingImports=false, reportOptionalMemberAccess=false, reportAttributeAccessIssue=false

import linecache
import math
import warnings
from contextlib import suppress
from functools import partial, wraps
from typing import Any

import torch

from ir.fused.background import Background
from ir.fused.checked_bits import drawn_like, same_bits
from ir.fused.kernel_source import kernel_for
from ir.fused.recorded import NoKernel, steps_of

try:
    import triton
    import triton.language as tl
    from triton.language.extra import libdevice
except ImportError:  # builds of torch for CPUs come without it
    triton = tl = libdevice = None

MOST_KERNELS = 16  # of a function, each of which takes the compiler a moment: for as many widths of rows, for example
MOST_DRAWN = 1 << 22  # numbers of a result that is compared, if fewer rows have the same kernel
MOST_LAUNCHES = 4096  # of a function, which are remembered: for as many sizes of batches
COMPILING = Background()
KERNELS = {}  # compiled ones by device, source and dtypes; what a compiler failed at; None of those that are not used
MET = set()  # the keys of those that were compared on a batch


def fused_kernel(function) -> Any:
    """A function of tensors that is one kernel on GPUs, once one is compiled for the layout of its arguments."""
    launches, sources = {}, set()

    @wraps(function)
    def run(*tensors):
        if runs_as_written(tensors):
            return function(*tensors)
        key = (here(), *[(t.get_device(), t.dtype, t.shape, t.stride(), t.is_neg(), type(t)) for t in tensors])
        launch = launches.get(key)
        if launch is None:
            if torch._C._cuda_isCurrentStreamCapturing():  # which no kernel can be compared in
                return function(*tensors)
            if len(launches) >= MOST_LAUNCHES:
                launches.clear()
            launch = launches[key] = launch_for(function, tensors, sources, partial(look_again, key))
        return launch(*tensors)

    def look_again(key, *tensors):
        launches.pop(key, None)
        return run(*tensors)

    run.launches = launches
    return run


def kernels_are_compiled():
    """Whether a kernel is compiled for each function that has run.  Graphs that are recorded before are without."""
    return COMPILING.is_done()


def finish_kernels():
    """Wait until they are."""
    COMPILING.finish()


def runs_as_written(tensors):
    """Whether no kernel can take the place of a function: torch follows what it does, or there are none."""
    return (
        torch.compiler.is_compiling()
        or triton is None
        or not tensors[0].is_cuda
        or torch.is_grad_enabled()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._get_tracing_state() is not None
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch.is_autocast_enabled()
    )


def here():
    """The number of the device that kernels are launched on."""
    return triton.runtime.driver.active.get_current_device()


def launch_for(function, tensors, sources, look_again):
    """The launch of a kernel in place of a function, for arguments like `tensors`; the function where there is none.

    While its kernel is compiled, the launch is the function, and `look_again` from then on.
    """
    try:
        return _checked_launch(function, tensors, sources, look_again)
    except NoKernel:
        return function
    except Exception as e:  # of Triton, say: results are right without a kernel
        _warn(function, _told(e))
        return function


def _warn(function, why):
    warnings.warn(f"{function.__name__} runs as single kernels: {why}", stacklevel=3)


def _told(error):
    return f"{type(error).__name__}: {error}"


def _checked_launch(function, tensors, sources, look_again):
    if any(t.get_device() != here() or type(t) not in (torch.Tensor, torch.nn.Parameter) for t in tensors):
        raise NoKernel("the arguments are not tensors of the current device")
    if any(t.is_neg() for t in tensors):
        raise NoKernel("an argument has its signs changed where it is read")
    if torch.version.hip is not None:
        raise NoKernel("operators have other bits there")
    formula = steps_of(function, tensors)
    kernel = kernel_for(formula, tensors)
    key = here(), kernel.source, *[t.dtype for t in tensors]
    if key not in sources and len(sources) >= MOST_KERNELS:
        raise NoKernel("it has many kernels already")
    sources.add(key)
    if key not in KERNELS:
        formula, kernel, tensors = _with_fewer_rows(function, formula, kernel, tensors)
        likes = [torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device="meta") for t in tensors]
        COMPILING.ask(key, partial(_compile, key, function, formula, kernel, likes, tensors[0].device))
        return lambda *tensors: look_again(*tensors) if key in KERNELS else function(*tensors)
    compiled = KERNELS[key]
    if isinstance(compiled, str):
        KERNELS[key] = None  # told once, and not for each layout
        _warn(function, compiled)
    if KERNELS[key] is None:
        raise NoKernel("its bits are not those of torch, or it was not compiled")
    launch = _launch(formula, kernel, compiled, function, tensors[0].device)
    if key not in MET:  # on numbers of a model, too
        some_formula, some_kernel, some = _with_fewer_rows(function, formula, kernel, tensors)
        if not _agree(_launch(some_formula, some_kernel, compiled, function, some[0].device), function, some):
            KERNELS[key] = None
            raise NoKernel("its bits are not those of torch for a batch")
        MET.add(key)
    return launch


def _with_fewer_rows(function, formula, kernel, tensors):
    """The formula, the kernel and the arguments for a part of the rows, if the source is the same for these.

    What is compared then takes little memory beside a batch that fills the device's.
    """
    shape, stride = formula.shape, formula.stride
    dim = max(range(len(shape)), key=lambda d: (shape[d] > 1, stride[d]))
    count = max(shape[dim] * MOST_DRAWN // math.prod(shape), 2)  # of one, the dimension would be another kind
    if count < shape[dim]:
        last = len(shape) - dim  # the number of the dimension from behind: an argument may have fewer
        few = [t.narrow(-last, 0, count) if t.dim() >= last and t.shape[-last] > 1 else t for t in tensors]
        with suppress(NoKernel):
            of_few = steps_of(function, few)
            small = kernel_for(of_few, few)
            if small.source == kernel.source:
                return of_few, small, few
    return formula, kernel, tensors


def _compile(key, function, formula, kernel, likes, device):
    """Compile a kernel, and compare it with its function on tensors that are drawn in the layouts of `likes`."""
    try:
        triton.runtime.driver.active.set_current_device(device.index)
        with torch.inference_mode():
            compiled = _compiled(kernel, formula, likes, device)
            launch = _launch(formula, kernel, compiled, function, device)
            if not all(_agree(launch, function, some) for some in drawn_like(likes, device)):
                compiled = None
    except Exception as e:
        compiled = _told(e)  # in words: with its traceback, an error would keep the drawn tensors
    KERNELS[key] = compiled


def _agree(launch, function, tensors):
    found, expected = launch(*tensors), function(*tensors)
    return same_bits(*(made if isinstance(made, tuple) else (made,) for made in (found, expected)))


def _compiled(kernel, formula, likes, device):
    """The compiled kernel.  Numbers are all the same to the compiler, so that it compiles once for all of them."""
    name = f"<a fused kernel {hash(kernel.source):x}>"  # other threads compile others meanwhile
    linecache.cache[name] = len(kernel.source), None, kernel.source.splitlines(keepends=True), name
    names = {"tl": tl, "libdevice": libdevice}
    exec(compile(kernel.source, name, "exec"), names)
    numbers = names["fused"].__code__.co_varnames[formula.inputs + len(formula.returned) :][: len(kernel.numbers)]
    jitted = triton.jit(names["fused"], do_not_specialize=numbers)
    dtypes = [*[like.dtype for like in likes], *_dtypes(formula)]
    aligned = [torch.empty(1, dtype=dtype, device=device) for dtype in dtypes]
    options = {"num_warps": kernel.warps, "enable_fp_fusion": False}  # a product and a sum are rounded apart
    compiled = jitted.warmup(*aligned, *kernel.numbers, grid=(1,), **options)
    compiled._init_handles()
    return compiled


def _dtypes(formula):
    return [formula.steps[index - formula.inputs].dtype for index in formula.returned]


def _launch(formula, kernel, compiled, function, device):
    """The launch of a kernel for arguments of one layout."""
    results = [(formula.shape, formula.stride, dtype) for dtype in _dtypes(formula)]
    number, programs, numbers = device.index, kernel.programs, kernel.numbers
    stream_of, start = triton.runtime.driver.active.get_current_stream, compiled.run
    handle, packed = compiled.function, compiled.packed_metadata

    def launch(*tensors):
        addresses = [t.data_ptr() for t in tensors]
        for address in addresses:
            if address % 16:  # which the kernel takes for granted
                return function(*tensors)
        made = [torch.empty_strided(shape, stride, dtype=dtype, device=device) for shape, stride, dtype in results]
        addresses += [t.data_ptr() for t in made]
        start(programs, 1, 1, stream_of(number), handle, packed, None, None, None, *addresses, *numbers)
        return made[0] if len(made) == 1 else tuple(made)

    return launch
