"""Classes and functions that stage files bring along where they need them, and files that they import."""

from __future__ import annotations

from codegen.lines.classes import DEQUANTIZING, FUSED, PAGED, QUANTIZED
from codegen.lines.init import NUMBERED
from codegen.lines.stage_file import StageFile
from codegen.spelling.torch_modules import FROZEN
from codegen.text.joined_files import joined_source
from ir.checkpoint.quantized.scaled_operator import DEQUANTIZED_SOURCE
from ir.fused import fused_kernel
from ir.fused.kernel_nodes import is_fused
from ir.paged import attention
from ir.paged.paged_operator import is_paged
from ir.quantized_linear import linear
from ir.quantized_linear.linear_operator import is_quantized_linear

_NUMBERED_MODULES = f"""
class {NUMBERED}(nn.ModuleList):  # modules under the numbers that they have in the whole model
    def __init__(self, modules: dict[int, nn.Module]):
        super().__init__()
        for number, module in modules.items():
            self.add_module(str(number), module)

    def __getitem__(self, index) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(index.start, index.stop, index.step or 1)]
        return self._modules[str(index)]
""".strip()

# torch's own would count its calls in a further buffer, and change with `train()` where nothing else does.
_FROZEN_BATCH_NORM = f"""
class {FROZEN}(nn.Module):  # nn.BatchNorm in evaluation, as the model was exported
    def __init__(self, features, eps=1e-5, dtype=torch.float32):
        super().__init__()
        self.weight, self.bias = (nn.Parameter(torch.empty(features, dtype=dtype)) for _ in range(2))
        self.running_mean, self.running_var = (nn.Buffer(torch.empty(features, dtype=dtype)) for _ in range(2))
        self.eps = eps

    def forward(self, x):
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
""".strip()

HELPERS = {NUMBERED: _NUMBERED_MODULES, FROZEN: _FROZEN_BATCH_NORM, DEQUANTIZING: DEQUANTIZED_SOURCE}


def files_beside(file: StageFile) -> dict[str, str]:
    """The files that a stage file imports from its own folder: their names there, and their text."""
    known = {PAGED: (is_paged, attention), QUANTIZED: (is_quantized_linear, linear), FUSED: (is_fused, fused_kernel)}
    return {f"{name}.py": joined_source(module) for name, (read, module) in known.items() if any(map(read, file.calls))}
