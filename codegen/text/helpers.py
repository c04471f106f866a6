"""Classes and functions that stage files bring along where they need them."""

from __future__ import annotations

import inspect
from types import ModuleType

from codegen.lines.classes import PAGED
from codegen.lines.init import NUMBERED
from codegen.spelling.torch_modules import FROZEN
from ir.paged import attention


def _text_of(module: ModuleType) -> str:
    """The source of a module from its first `try` on."""
    source = inspect.getsource(module)
    return source[source.index("\ntry:") :].strip()


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

HELPERS = {PAGED: _text_of(attention), NUMBERED: _NUMBERED_MODULES, FROZEN: _FROZEN_BATCH_NORM}
