"""The page of a report: one file with its style, scripts and data, which needs no network."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Mapping
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

REPORT = "report.html"  # its name in an artifact folder

_DATA = re.compile(r'(<script id="data" type="application/json">)(.*?)(</script>)', re.DOTALL)


def page(title: str, data: Mapping[str, Any]) -> str:
    """The template, with each `{{name}}` in it replaced by the title, the data or the file of that name."""
    given = {"title": escape(title), "data": _encode(data)}

    def part(match: re.Match[str]) -> str:
        return given[match[1]] if match[1] in given else _asset(match[1])

    return re.sub(r"\{\{(\S+)\}\}", part, _asset("page.html"))


def data_of(page: str) -> dict[str, Any]:
    """The data in a page.  Raises ValueError where it is no report."""
    found = _DATA.search(page)
    if found is None:
        raise ValueError("it holds no data of a report")
    return json.loads(found[2])


def with_data(page: str, data: Mapping[str, Any]) -> str:
    """The same page with other data."""
    return _DATA.sub(lambda match: match[1] + _encode(data) + match[3], page, count=1)


@cache
def _asset(name: str) -> str:
    """The text of a file; with `.gz` after its name, packed into a third of the letters."""
    folder = files("codegen.report") / "assets"
    if name.endswith(".gz"):
        packed = gzip.compress((folder / name.removesuffix(".gz")).read_bytes(), mtime=0)
        return base64.b64encode(packed).decode()
    return (folder / name).read_text(encoding="utf-8").strip()


def _encode(data: Mapping[str, Any]) -> str:
    """JSON in which nothing can end the element that it stands in."""
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
