"""The predicted timeline: what a person can check by hand, and what must hold of any."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codegen.report.timeline import Span, Work, simulate

MANY = 1000


def chain(*seconds: float, transfer: float = 0.0) -> list[Work]:
    """Stages one after the other, each on a device of its own."""
    last = len(seconds) - 1
    return [
        Work(i, transfer if i else 0.0, s, transfer if i < last else 0.0, (i - 1,) if i else ())
        for i, s in enumerate(seconds)
    ]


def end(spans: tuple[Span, ...]) -> float:
    return max(span.end for span in spans)


def test_one_microbatch_goes_through_one_stage_after_the_other() -> None:
    spans = simulate(chain(1, 2, 3, transfer=0.5), 1, MANY)
    assert [(s.kind, s.stage) for s in spans if s.stage == 1] == [("receive", 1), ("compute", 1), ("send", 1)]
    assert end(spans) == 1 + 0.5 + 2 + 0.5 + 3  # received while it is sent


def test_a_stream_is_as_fast_as_its_slowest_stage() -> None:
    assert end(simulate(chain(1, 3, 2), 10, MANY)) == 1 + 10 * 3 + 2
    busiest = 0.5 + 3 + 0.5
    assert end(simulate(chain(1, 3, 2, transfer=0.5), 10, MANY)) == 1 + 10 * busiest + 2


def test_equal_stages_have_the_bubble_of_the_books() -> None:
    assert end(simulate(chain(1, 1, 1, 1), 8, MANY)) == 8 + 4 - 1


def test_with_one_in_flight_each_waits_for_the_one_before() -> None:
    assert end(simulate(chain(1, 3, 2), 4, 1)) == 4 * 6


def test_stages_on_one_device_take_turns() -> None:
    work = [Work(0, 0, 1, 0, ()), Work(1, 0, 2, 0, (0,)), Work(0, 0, 1, 0, (1,))]
    assert end(simulate(work, 10, MANY)) == pytest.approx(10 * 2 + 2, abs=2)


def test_a_skip_waits_for_both_of_its_sources() -> None:
    work = [Work(0, 0, 1, 0, ()), Work(1, 0, 5, 0, (0,)), Work(2, 0, 1, 0, (0, 1))]
    (last,) = (s for s in simulate(work, 1, MANY) if s.stage == 2)
    assert last.start == 6


@given(
    st.lists(st.tuples(st.integers(0, 2), *[st.integers(0, 4)] * 3, st.integers(0, 7)), min_size=1, max_size=4),
    st.integers(1, 5),
    st.integers(1, 6),
)
def test_what_must_hold_of_any(rows: list[tuple[int, ...]], microbatches: int, in_flight: int) -> None:
    work = [
        Work(device, r, c, s, tuple(k for k in range(i) if mask >> k & 1))
        for i, (device, r, c, s, mask) in enumerate(rows)
    ]
    spans = simulate(work, microbatches, in_flight)
    busy: dict[int, list[Span]] = defaultdict(list)
    for span in spans:
        busy[work[span.stage].device].append(span)
        assert span.end - span.start == getattr(work[span.stage], span.kind)
    assert all(a.end <= b.start for of_device in busy.values() for a, b in pairwise(of_device))
    assert len(spans) == microbatches * sum(seconds > 0 for w in work for _, seconds in w.parts)
    computed = {(s.stage, s.microbatch): s.end for s in spans if s.kind == "compute"}
    for span in spans:
        assert all(computed.get((source, span.microbatch), 0) <= span.start for source in work[span.stage].sources)
    for at in {span.start for span in spans}:
        begun = {s.microbatch for s in spans if s.start <= at}
        ended = {m for m in begun if all(s.end <= at for s in spans if s.microbatch == m)}
        assert len(begun - ended) <= in_flight
