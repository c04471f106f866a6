"""`del` and comments, added to planned lines."""

from __future__ import annotations

from codegen.lines.layout import SOON, StatementLines, with_comments, with_deletions
from codegen.lines.line import Bind, Comment, Delete, For, Line, height
from codegen.spelling.expressions import Variable
from ir.location import Frame


def bind(name: str, origin: Frame | None = None) -> Bind:
    return Bind((name,), (Variable("x"),), origin=origin)


def deletions(*statements: StatementLines) -> list[tuple[int, tuple[str, ...]]]:
    lines = with_deletions(statements)
    return [(i, line.names) for i, line in enumerate(lines) if isinstance(line, Delete)]


def test_what_is_dead_is_deleted_right_after_its_last_use() -> None:
    first = StatementLines((bind("copy"), bind("y")), ("a", "b"))
    others = [StatementLines((bind(f"z_{i}"),), ()) for i in range(SOON)]
    assert deletions(first, *others) == [(2, ("a", "b"))]


def test_what_is_soon_bound_again_or_soon_gone_is_not_deleted() -> None:
    first = StatementLines((bind("y"),), ("a", "b"))
    others = [StatementLines((bind(f"z_{i}"),), ()) for i in range(SOON - 1)]
    assert deletions(first, *others) == []
    loop = For(("layer",), Variable("layers"), (bind("a"),))
    assert deletions(first, *others, StatementLines((loop,), ())) == [(1, ("b",))]


def test_a_comment_names_the_source_where_it_changes() -> None:
    own, inner = Frame("h.0", "block.py", 1), Frame("h.0.mlp", "mlp.py", 7)
    lines: list[Line] = [
        bind("a", own),
        bind("b", inner),
        For(("i",), Variable("r"), (bind("c", inner), bind("d", own))),
    ]
    planned = with_comments(lines, "h.0")
    assert [line.text for line in planned if isinstance(line, Comment)] == ["mlp (mlp.py:7)"]
    [loop] = (line for line in planned if isinstance(line, For))
    assert [line.source for line in loop.body] == ["c = x", "# block.py:1", "d = x"]


def test_long_lines_count_as_those_that_the_formatter_makes_of_them() -> None:
    long = Bind(("y",), (Variable("x" * 100), Variable("x" * 100)))
    assert height([bind("a"), For(("i",), Variable("r"), (bind("b"), long))], 2) == 3 + 4
