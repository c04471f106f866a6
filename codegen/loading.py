"""The part of a stage file that reads the stage's weights."""

from __future__ import annotations

from codegen.source import Source
from codegen.stage_file import StageFile
from ir.graph import Constant


def emit_load(file: StageFile, src: Source, strided: bool) -> None:
    """Write the method that makes a stage from its weights."""
    src.line("@classmethod")
    with src.block('def load(cls, path, device="cpu"):'):
        src.line('"""The stage with its weights, each read into memory of its own on the device."""')
        with src.block('with torch.device("meta"):'):
            src.line("stage = cls()")
        with src.block('with safe_open(path, framework="pt") as file:'):
            src.line("tensors = {name: file.get_tensor(name).to(device, copy=True) for name in file.keys()}")
        if strided:
            with src.block("for name, stride in STRIDES.items():"):
                src.line("flat = tensors[name]")
                src.line("tensors[name] = torch.empty_strided(flat.shape, stride, dtype=flat.dtype, device=device)")
                src.line("tensors[name].copy_(flat)")
        if any(isinstance(v, Constant) for v in file.stage.stored):
            with src.block("for name in CONSTANTS:"):
                src.line("place(stage, name, tensors.pop(name), persistent=False)")
        src.line("stage.load_state_dict(tensors, assign=True)")
        src.line("return stage.eval()")


SUPPORT = '''
class Block(nn.Module):
    """A module whose numbered parts are reached as h[6]."""

    def __getitem__(self, index):
        return getattr(self, str(index))


def place(module, name, tensor, persistent=True):
    """Put a tensor under its dotted name, making the blocks on the way."""
    *path, leaf = name.split(".")
    for part in path:
        if part not in module._modules:
            module._modules[part] = Block()
        module = module._modules[part]
    if isinstance(tensor, nn.Parameter):
        module._parameters[leaf] = tensor
    else:
        module.register_buffer(leaf, tensor, persistent=persistent)
'''.strip()
