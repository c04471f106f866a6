"""Declarations of what a class holds, by how each part is made."""

from __future__ import annotations

from codegen.lines.init import NUMBERED, base_class, helpers, init_lines
from codegen.lines.modules import (
    Constructed,
    Constructor,
    Contents,
    Existing,
    ModuleSequence,
    PlainModule,
    Rebuilt,
    StoredTensor,
    TensorSequence,
)
from tests.support.models.graphs import param, state


def contents(
    *stored: str,
    constructed: dict[str, Constructor] | None = None,
    rebuilt: dict[str, str] | None = None,
    sliced: tuple[str, ...] = (),
) -> PlainModule | ModuleSequence:
    return Contents({name: param(name, shape=(2,)) for name in stored}, constructed or {}, rebuilt or {}, sliced).tree()


def declared(root: PlainModule | ModuleSequence) -> list[str]:
    return [line.source for line in init_lines(root)]


LAYER = Constructor("Layer()", frozenset({"fc.weight"}))
W = "nn.Parameter(torch.empty(2))"


def test_tensors_stand_in_modules_that_hold_nothing_else() -> None:
    root = contents("scale", "mlp.weight")
    assert declared(root) == [
        "super().__init__()",
        f"self.scale = {W}",
        "self.mlp: Any = nn.Module()",
        f"self.mlp.weight = {W}",
    ]


def test_lists_that_start_late_or_are_sliced_keep_their_numbers() -> None:
    for numbers, sliced, kind in (("01", (), "nn.ModuleList"), ("12", (), NUMBERED), ("01", ("h",), NUMBERED)):
        names = [f"h.{n}" for n in numbers]
        root = contents(*(f"{n}.fc.weight" for n in names), constructed=dict.fromkeys(names, LAYER), sliced=sliced)
        assert isinstance(root, PlainModule)
        assert isinstance(root.parts["h"], ModuleSequence)
        assert declared(root)[1].startswith(f"self.h = {kind}(")
        assert helpers(root) == ({NUMBERED} if kind == NUMBERED else set())


def test_modules_of_a_class_that_start_late_are_a_dict_of_torch() -> None:
    names = [f"h.{n}" for n in (2, 3, 4, 7)]
    held = {f"{name}.fc.weight": param(name, shape=(2,)) for name in names}
    root = Contents(held, dict.fromkeys(names, LAYER), {}, (), ("h",)).tree()
    assert declared(root)[1] == "self.h = nn.ModuleDict({str(i): Layer() for i in (2, 3, 4, 7)})"
    assert not helpers(root)


def test_a_class_can_be_a_list_itself() -> None:
    root = contents("0.fc.weight", "1.fc.weight", constructed={"0": LAYER, "1": LAYER})
    assert base_class(root) == "nn.ModuleList"
    assert declared(root) == ["super().__init__([Layer() for _ in range(2)])"]


def test_what_a_constructor_lacks_is_added_to_the_modules_in_it() -> None:
    root = contents("a.fc.weight", "a.fc.bias", constructed={"a": LAYER})
    [made] = root.parts.values()
    assert isinstance(made, Constructed)
    assert isinstance(made.added["fc"], Existing)
    assert declared(root)[1:] == ["self.a: Any = Layer()", f"self.a.fc.bias = {W}"]


def test_names_that_are_none_for_python_are_registered() -> None:
    root = contents("w.0", "w.2", "b.0", "b.1", "keep.x", rebuilt={"keep": "rebuilt(Gate, {})"})
    assert isinstance(root, PlainModule)
    assert [type(part) for part in root.parts.values()] == [Rebuilt, PlainModule, TensorSequence]
    assert declared(root)[1:] == [
        "self.keep = rebuilt(Gate, {})",
        f"self.keep.x = {W}",
        "self.w: Any = nn.Module()",
        f'self.w.register_parameter("0", {W})',
        f'self.w.register_parameter("2", {W})',
        f"self.b = nn.ParameterList({W} for _ in range(2))",
    ]


def test_tensors_know_whether_they_are_parameters() -> None:
    assert StoredTensor(param("w")).is_parameter
    assert not StoredTensor(state("w")).is_parameter
