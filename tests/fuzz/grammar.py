"""What statements a random module is made of.

Each rule returns an expression, whose value gets a name; `Many`, an expression of several values; or `Effect`, a
statement that changes values in place.  A rule may be careless: what does not run at all sizes is not taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from tests.fuzz.draft import Draft, NoValueError


@dataclass(frozen=True)
class Many:
    count: int
    text: str


@dataclass(frozen=True)
class Effect:
    text: str


Rule = Callable[[Draft], "str | Many | Effect"]

UNARY = [
    "relu", "sigmoid", "tanh", "sin", "cos", "abs", "neg", "erf", "square", "sign", "floor", "round", "trunc",
    "exp", "log1p", "frac", "positive",
]  # fmt: skip
UNARY_F = [
    "gelu", "silu", "mish", "elu", "leaky_relu", "softplus", "hardtanh", "softsign", "hardswish", "logsigmoid",
    "relu6", "selu",
]  # fmt: skip
BINARY = ["add", "sub", "mul", "maximum", "minimum", "atan2", "hypot", "fmod"]
COMPARE = ["<", "<=", ">", ">=", "==", "!="]
REDUCE = ["sum", "mean", "amax", "amin", "logsumexp", "std", "var", "prod", "norm"]
INPLACE = ["add_(1)", "mul_(0.5)", "clamp_(-1, 1)", "relu_()", "zero_()", "fill_(0.25)", "neg_()", "tanh_()", "sub_(2)"]
DTYPES = ["torch.float32", "torch.float64", "torch.bfloat16", "torch.int64", "torch.bool"]


def block(g: Draft, x: str) -> str:
    """A slice of a tensor, some of its bounds made from sizes."""
    d = g.rng.randrange(g[x].dim())
    end = g.one_of("1", "-1", "2", f"{x}.shape[{d}] // 2", f"{x}.shape[{d}] - 1")
    part = g.one_of(f":{end}", "1:", "::2", "-1", "0", f"{end}:", "1::2")
    return f"{x}[{':, ' * d}{part}]" if g.rng.random() < 0.7 else f"{x}[..., {part}]"


def writable(g: Draft) -> str:
    """A value that may be written to, seldom an input of the caller."""
    x = g.real()
    if not x.startswith("v") and g.rng.random() < 0.85:
        raise NoValueError
    return x


def target(g: Draft) -> str:
    """What a statement may write to: a value, a part of it, or another view of it."""
    x = writable(g)
    ways = [x, block(g, x), block(g, x), f"{x}.transpose(0, -1)", f"{x}.select({g.dim(x)}, 0)", f"{x}.detach()"]
    ways += [f"{x}.unsqueeze(0)", f"{x}.flatten()", f"{x}.chunk(2, {g.dim(x)})[0]", f"{x}.view(-1)", f"{x}.diagonal()"]
    return g.one_of(*ways)


def linear(g: Draft) -> str:
    x = g.real(test=lambda t: t.dtype == torch.float32)
    made = f"nn.Linear({g.fixed(x, -1)}, {g.one_of(4, 8)}, bias={g.one_of(True, False)})"
    return f"{g.module(made)}({x})"


def tied(g: Draft) -> str:
    x = g.real(test=lambda t: t.dtype == torch.float32)
    n = g.fixed(x, -1)
    first, second = g.attribute(f"nn.Linear({n}, {n})"), g.attribute(f"nn.Linear({n}, {n}, bias=False)")
    g.init.append(f"{second}.weight = {first}.weight")
    return g.one_of(f"{second}({first}({x}))", f"{first}({x}) @ {second}.weight.t()", f"{first}({x}) + {second}({x})")


def parameter(g: Draft) -> str:
    x = g.real(test=lambda t: t.dtype == torch.float32)
    p = g.attribute(f"nn.Parameter(torch.randn({g.fixed(x, -1)}))")
    return f"{x} {g.one_of('*', '+', '-')} {p}{g.one_of('', '.abs()', '[:1]')}"


def norm(g: Draft) -> str:
    x = g.real(test=lambda t: t.dtype == torch.float32, least=2)
    n, c = g.fixed(x, -1), g.fixed(x, 1)
    return g.one_of(
        f"{g.module(f'nn.LayerNorm({n})')}({x})",
        f"{g.module(f'nn.RMSNorm({n})')}({x})",
        f"{g.module(f'nn.BatchNorm1d({c})')}({x})",
        f"{g.module(f'nn.GroupNorm(2, {c})')}({x})",
        f"F.normalize({x}, dim={g.dim(x)})",
        f"F.layer_norm({x}, ({n},))",
    )


def convolution(g: Draft) -> str:
    x = g.real(rank=3, test=lambda t: t.dtype == torch.float32)
    if g.rng.random() < 0.5:
        made, x = f"nn.Conv1d({g.fixed(x, -1)}, 4, {g.one_of(1, 3)}, padding=1)", f"{x}.transpose(1, 2)"
    else:
        c = g.fixed(x, 1)
        made = g.one_of(
            f"nn.Conv1d({c}, {c}, 3, padding=1, groups={c})",
            f"nn.Conv1d({c}, 4, 2, stride=2)",
            f"nn.ConvTranspose1d({c}, 4, 2, stride=2)",
        )
    return f"{g.module(made)}({x})"


def plane(g: Draft) -> str:
    x = g.real(rank=3, test=lambda t: t.dtype == torch.float32)
    kind = g.one_of("conv", "pool", "upsample")
    if kind == "conv":
        made = f"nn.Conv2d(1, 2, {g.one_of(1, 3)}, padding=1)"
        return f"{g.module(made)}({x}.unsqueeze(1))"
    if kind == "pool":
        return f"F.{g.one_of('max_pool2d', 'avg_pool2d')}({x}.unsqueeze(1), 2).squeeze(1)"
    return f"F.interpolate({x}, scale_factor=2, mode={g.one_of(repr('nearest'), repr('linear'))})"


def pool(g: Draft) -> str | Many:
    x = g.real(rank=3, test=lambda t: t.dtype == torch.float32)
    return g.one_of(
        f"F.max_pool1d({x}, 2)",
        f"F.avg_pool1d({x}, 2, stride=1)",
        f"F.adaptive_avg_pool1d({x}, {g.one_of(1, 2)})",
        Many(2, f"F.max_pool1d({x}, 2, return_indices=True)"),
    )


def attention(g: Draft) -> str:
    x = g.real(rank=3, test=lambda t: t.dtype == torch.float32)
    n, heads = g.fixed(x, -1), g.one_of(1, 2)
    split = f"view({x}.shape[0], {x}.shape[1], {heads}, -1).transpose(1, 2)"
    q = f"{g.module(f'nn.Linear({n}, {n})')}({x}).{split}"
    mask = f"torch.ones({x}.shape[1], {x}.shape[1], dtype=torch.bool)"
    options = g.one_of("", ", is_causal=True", f", attn_mask={mask}.tril()", f", attn_mask={mask}.triu().flip(-1)")
    k = g.like(x)
    attended = f"F.scaled_dot_product_attention({q}, {k}.{split.replace(x, k)}, {x}.{split}{options})"
    return f"{attended}.transpose(1, 2).{g.one_of('flatten(2)', f'reshape({x}.shape)')}"


def multihead(g: Draft) -> Many:
    x = g.real(rank=3, test=lambda t: t.dtype == torch.float32)
    m = g.module(f"nn.MultiheadAttention({g.fixed(x, -1)}, 2, batch_first={g.one_of(True, False)})")
    return Many(2, f"{m}({x}, {x}, {x}, need_weights={g.one_of(True, True, False)})")


def recurrent(g: Draft) -> Many:
    x = g.real(rank=3, test=lambda t: t.dtype == torch.float32)
    kind = g.one_of("GRU", "RNN")
    return Many(2, f"{g.module(f'nn.{kind}({g.fixed(x, -1)}, 4, batch_first=True)')}({x})")


def embedding(g: Draft) -> str:
    i, m = g.whole(), g.module(f"nn.Embedding(9, {g.one_of(4, 8)})")
    return g.one_of(f"{m}({i} % 9)", f"F.embedding({i}.clamp(0, 8), {m}.weight)", f"{m}.weight[{i} % 9]")


def gather(g: Draft) -> str:
    x, d = g.real(), 0
    d = g.dim(x)
    i = f"({g.whole()} % {g.size(x, d)})"
    index = f"torch.zeros_like({x}, dtype=torch.int64)"
    return g.one_of(
        f"{x}.gather({d}, {index})",
        f"{x}.index_select({d}, torch.arange({g.size(x, d)}).flip(0))",
        f"torch.take_along_dim({x}, {x}.argsort({d}), {d})",
        f"{x}[{i}]" if d in (0, -g[x].dim()) else f"{x}[:, {i}]",
        f"{x}.scatter({d}, {index}, {g.number()})",
        f"{x}.scatter_add({d}, {index}, {x})",
        f"{x}.index_add({d}, torch.arange({g.size(x, d)}), {g.like(x)})",
        f"{x}.index_copy({d}, torch.arange({g.size(x, d)}).flip(0), {g.like(x)})",
        f"{x}.index_fill({d}, torch.tensor([0]), {g.number()})",
        f"{x}.take({g.whole()} % {x}.numel())",
    )


def view(g: Draft) -> str | Many:
    x = g.any(lambda t: t.dim() >= 1)
    d, e = g.dim(x), g.dim(x)
    order = g.rng.sample(range(g[x].dim()), g[x].dim())
    return g.one_of(
        f"{x}.transpose({d}, {e})", f"{x}.permute({', '.join(map(str, order))})", f"{x}.unsqueeze({d})",
        f"{x}.flatten({g.one_of(0, 1)})", f"{x}.reshape({g.size(x, 0)}, -1)", f"{x}.view(-1, {g.size(x, -1)})",
        f"{x}.narrow({d}, 0, {g.size(x, d)} // 2)", f"{x}.select({d}, -1)", block(g, x), block(g, x), f"{x}.mT",
        f"{x}.diagonal(0, {d}, {e})", f"{x}.unsqueeze(0).expand({g.one_of(2, 3)}, {'-1, ' * g[x].dim()})",
        f"{x}.movedim({d}, {e})", f"{x}.unflatten({d}, (-1, 2))", f"{x}.unfold({d}, 2, 1)", f"{x}.squeeze()",
        f"{x}.view({x}.shape)", f"{x}.detach()", f"{x}.expand_as({g.like(x)})", f"{x}[None]", f"{x}[..., None]",
        f"{x}.as_strided(({x}.shape[0],), ({x}.stride(0),))", f"{x}.contiguous()", f"{x}.view_as({g.like(x)})",
        Many(2, f"{x}.chunk(2, {d})"), Many(2, f"{x}.split({g[x].shape[d]} // 2 or 1, {d})[:2]"),
        Many(2, f"{x}.unbind({d})[:2]"), Many(2, f"torch.tensor_split({x}, 2, {d})"),
    )  # fmt: skip


def joined(g: Draft) -> str:
    x = g.any(lambda t: t.dim() >= 1)
    d = g.dim(x)
    return g.one_of(
        f"torch.cat([{x}, {g.like(x)}], {d})", f"torch.stack([{x}, {g.like(x)}], {d})",
        f"{x}.repeat_interleave(2, {d})",
        f"{x}.roll(1, {d})", f"{x}.flip({d})", f"F.pad({x}, (1, 0))", f"{x}.tril()", f"{x}.triu(1)",
        f"{x}.repeat(2{', 1' * (g[x].dim() - 1)})", f"torch.hstack([{x}, {g.like(x)}])", f"{x}.clone()",
    )  # fmt: skip


def reduction(g: Draft) -> str | Many:
    x = g.real()
    d, keep = g.dim(x), g.one_of(True, False)
    return g.one_of(
        f"{x}.{g.one_of(*REDUCE)}({d}, keepdim={keep})", f"{x}.{g.one_of('sum', 'mean', 'max', 'std')}()",
        f"{x}.argmax({d})", f"{x}.{g.one_of('cumsum', 'cumprod')}({d})", f"{x}.softmax({d})", f"{x}.log_softmax({d})",
        Many(2, f"{x}.max({d})"), Many(2, f"{x}.topk(2, {d})"), Many(2, f"{x}.sort({d})"), Many(2, f"{x}.cummax({d})"),
        f"{x}.sum(({d}, -1)).abs()", f"({x} > 0).any({d})", f"({x} > 0).sum({d})", f"torch.var_mean({x}, {d})[0]",
    )  # fmt: skip


def product(g: Draft) -> str:
    x = g.real(least=2)
    y = g.like(x)
    return g.one_of(
        f"{x} @ {y}.mT",
        f"torch.matmul({x}.mT, {y})",
        f"torch.einsum('...i,...i->...', {x}, {y})",
        f"torch.einsum('...ij,...kj->...ik', {x}, {y})",
        f"torch.bmm({x}, {y}.transpose(1, 2))",
        f"torch.baddbmm({x}[:, :, :1], {x}, {y}.mT)",
        f"torch.outer({x}.flatten()[:3], {y}.flatten()[:4])",
    )


def cast(g: Draft) -> str:
    x = g.any()
    to = g.one_of(*DTYPES)
    return g.one_of(
        f"{x}.to({to})", f"{x}.to({to})", f"{x}.double()", f"{x}.float()", f"{x}.to({g.any()}.dtype)", f"{x}.bool()",
        f"{x}.type_as({g.any()})", f"{x}.long() % 7",
    )  # fmt: skip


def constant(g: Draft) -> str:
    x = g.real()
    d = g.dim(x)
    n = g.size(x, d)
    return g.one_of(
        f"torch.arange({n})", f"torch.arange({n}, dtype={x}.dtype)", f"torch.zeros({n})", f"torch.ones({n}, 1)",
        f"torch.full(({n},), {g.number()})", f"torch.eye({n})", f"torch.linspace(0, 1, {n})", f"{x}.new_zeros({n})",
        f"torch.ones_like({x})", f"torch.tensor([{g.number()}, {g.number()}])", f"torch.tensor({g.number()})",
        f"torch.zeros({x}.shape)", f"torch.tensor({n})", f"{x}.new_full({x}.shape, {g.number()})",
        f"F.one_hot({g.whole()} % 5, 5)",
        f"torch.full_like({x}, {g.number()})", f"torch.ones({n}, {n}).tril()", "torch.tensor([1, 2, 3])",
    )  # fmt: skip


def held(g: Draft) -> str:
    """A tensor that the module holds outside its parameters, only read."""
    x = g.real(test=lambda t: t.dtype == torch.float32)
    made = f"torch.randn({g.fixed(x, -1)})"
    kind = g.one_of("buffer", "passing", "attribute", "list", "dict", "number")
    match kind:
        case "buffer" | "passing":
            held = g.buffer(made, kind == "buffer")
        case "attribute":
            held = g.attribute(made)
        case "list":
            held = f"{g.attribute(f'[{made}, 3]')}[0]"
        case "dict":
            held = f"{g.attribute(f'dict(scale={made})')}['scale']"
        case _:
            held = g.attribute(str(g.number()))
    return g.one_of(f"{x} + {held}", f"{x} * {held}", f"torch.where({x} > 0, {held}, {x})")


def changed(g: Draft) -> str | Effect:
    """A buffer that a call changes, and that it reads before or after."""
    x = g.real(test=lambda t: t.dtype == torch.float32)
    n = g.fixed(x, -1)
    b = g.buffer(f"torch.{g.one_of('zeros', 'ones')}({n})", g.one_of(True, False))
    now = f"{x}.reshape(-1, {n})[0]"
    change = g.one_of(
        f"{b}.add_(1)", f"{b}.copy_({now})", f"{b} += {now} * 0.1", f"{b} = {b} * 0.5 + {now}", f"{b}[0] = 2.5",
        f"{b}[:2].mul_(0.5)", f"{b}.mul_(0.9).add_({now}, alpha=0.1)", f"{b}.view(-1)[1:].copy_({now}[1:])",
        f"{b}.masked_fill_({now} > 0, 0.5)", f"{b}.index_add_(0, torch.tensor([0]), {now}[:1])",
        f"{b}.lerp_({now}, 0.1)", f"torch.add({b}, {now}, out={b})",
    )  # fmt: skip
    v = g.fresh()
    read = g.one_of(f"{x} + {b}", f"{x} * {b}", f"{b}.clone()", f"{b}", f"{b}[:2]", f"{b}.expand_as({x})")
    lines = g.one_of([change, f"{v} = {read}"], [f"{v} = {read}", change], [change, f"{v} = {read}", change])
    return Effect("\n".join(lines))


def counter(g: Draft) -> Effect:
    b = g.buffer(f"torch.tensor({g.one_of('0', '1.0')})", g.one_of(True, False))
    x, v = g.real(), g.fresh()
    return Effect(
        g.one_of(f"{b} += 1\n{v} = {x} * {b}", f"{b}.add_(1)\n{v} = {x} + {b}", f"{v} = {x} - {b}\n{b}.add_(2)")
    )


def write(g: Draft) -> Effect:
    """A write in place, to a value that others may see."""
    t, x = target(g), writable(g)
    return Effect(
        g.one_of(
            f"{t}.{g.one_of(*INPLACE)}", f"{t}.{g.one_of(*INPLACE)}", f"{t}.copy_({x})", f"{t}.add_({x})",
            f"{t}.masked_fill_({t} > 0.5, {g.number()})", f"{t}[:] = {g.number()}", f"{x} += {g.number()}",
            f"{t}.mul_({x}).sub_(1)", f"{x}[torch.tensor([0, 1])] = {g.number()}", f"{x}[{x} > 0.5] = {g.number()}",
            f"{x}.index_put_((torch.tensor([0]),), torch.tensor({g.number()}, dtype={x}.dtype), accumulate=True)",
            f"{t}.index_fill_(0, torch.tensor([0]), 1.0)", f"F.relu({x}, inplace=True)", f"{x} *= {g.beside(x)}",
            f"torch.mul({x}, 2, out={g.like(x)})", f"{x}.scatter_(0, torch.zeros_like({x}, dtype=torch.int64), 0.5)",
            f"{g.attribute('nn.ReLU(inplace=True)')}({x})", f"{block(g, x)} = {block(g, g.like(x))}",
        )
    )  # fmt: skip


def unusual(g: Draft) -> Effect:
    """State that is no buffer: a parameter that changes, a plain attribute that is assigned anew."""
    x, v = g.real(test=lambda t: t.dtype == torch.float32), g.fresh()
    n = g.fixed(x, -1)
    p, t, i = g.attribute(f"nn.Parameter(torch.ones({n}))"), g.attribute(f"torch.zeros({n})"), g.attribute("0")
    return Effect(
        g.one_of(
            f"{p}.data.mul_(0.5)\n{v} = {x} * {p}",
            f"{v} = {x} + {t}\n{t} = {x}.reshape(-1, {n})[0].clone()",
            f"{t}.add_(1)\n{v} = {x} + {t}",
            f"{i} += 1\n{v} = {x} * {i}",
        )
    )


def branch(g: Draft) -> Effect:
    x, v = g.real(), g.fresh()
    d = g.rng.randrange(g[x].dim())
    test = g.one_of(f"{x}.shape[{d}] > {g.one_of(2, 3, 4, 6)}", f"{x}.shape[{d}] % 2 == 0", f"{x}.dim() == 3",
                    f"{x}.dtype == torch.float32", "self.training", f"{x}.shape[0] == {x}.shape[-1]")  # fmt: skip
    return Effect(f"if {test}:\n    {v} = {x} * 2\nelse:\n    {v} = {x} - 1")


def by_size(g: Draft) -> str:
    x = g.real()
    d = g.rng.randrange(g[x].dim())
    n = f"{x}.shape[{d}]"
    return g.one_of(f"{x} / {n}", f"{x} * ({n} // 2)", f"{x} + {n} % 3", f"{x}[:, : {n} // 2 + 1]",
                    f"{x} * min({n}, 4)",
                    f"{x} * float({n}) ** 0.5", f"sum({x}[i] for i in range(2))", f"{x} + len({x})")  # fmt: skip


def loop(g: Draft) -> Effect:
    x, v = g.real(test=lambda t: t.dtype == torch.float32), g.fresh()
    n = g.fixed(x, -1)
    layers = g.attribute(f"nn.ModuleList([nn.Linear({n}, {n}) for _ in range({g.one_of(2, 3)})])")
    return Effect(f"{v} = {x}\nfor layer in {layers}:\n    {v} = {v} + layer({v}){g.one_of('', '.relu()', '.tanh_()')}")


def elementwise(g: Draft) -> str:
    x = g.real(least=0)
    y = g.beside(x)
    return g.one_of(
        f"{x}.{g.one_of(*UNARY)}()", f"F.{g.one_of(*UNARY_F)}({x})", f"torch.{g.one_of(*BINARY)}({x}, {y})",
        f"{x} {g.one_of('+', '-', '*')} {y}", f"{x} {g.one_of('+', '-', '*', '/')} {g.number()}", f"{g.number()} - {x}",
        f"{x} / ({y}.abs() + 1)", f"{x} {g.one_of(*COMPARE)} {y}", f"torch.where({x} > {y}, {x}, {y})",
        f"{x}.clamp(-1, 1)",
        f"torch.lerp({x}, {y}, 0.25)", f"torch.addcmul({x}, {y}, {y}, value=0.5)", f"torch.add({x}, {y}, alpha=2)",
        f"{x} ** 2", f"F.dropout({x}, 0.5, self.training)", f"{x}.masked_fill({x} > 0, {g.number()})", f"{x} * 1",
        f"{x} + 0",
        f"torch.add({x}, {g.real(least=0)})", f"{x}.nan_to_num()", f"torch.sqrt({x}.abs() + 1)",
    )  # fmt: skip


def integers(g: Draft) -> str:
    i = g.whole()
    return g.one_of(f"{i} + 1", f"{i} * 2", f"{i} // 2", f"{i} % 3", f"{i} == 2", f"{i}.cumsum(-1)", f"{i} & 3",
                    f"{i}.float()",
                    f"{i}.clamp(max=3)", f"({i} > 1) & ({i} < 4)", f"{i} / 2", f"-{i}",
                    f"{i} + {g.beside(i)}")  # fmt: skip


def booleans(g: Draft) -> str:
    b = g.bool()
    return g.one_of(f"~{b}", f"{b} & {g.beside(b)}", f"{b}.float()", f"{b}.any()", f"torch.where({b}, 1.5, -0.5)",
                    f"{b}.sum()", f"{b} | True", f"{g.real()} * {b}", f"{b}.logical_xor({g.beside(b)})")  # fmt: skip


RULES: tuple[tuple[float, Rule], ...] = (
    (10, elementwise), (4, linear), (2, tied), (2, parameter), (3, norm), (2, convolution), (2, plane), (2, pool),
    (2, attention), (1, multihead), (1, recurrent), (3, embedding), (4, gather), (12, view), (4, joined),
    (5, reduction), (3, product), (4, cast), (4, constant), (3, held), (4, changed), (1, counter), (10, write),
    (3, branch), (0.2, unusual), (3, by_size), (1, loop), (3, integers), (2, booleans),
)  # fmt: skip
