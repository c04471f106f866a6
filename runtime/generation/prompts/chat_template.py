"""Chat templates, compiled in the environment that checkpoints write them for: that of transformers."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from runtime.errors import InputError


def compiled_template(source: str) -> Any:
    """A template of jinja2 with transformers' extensions, and nothing that could touch this process.

    Raises InputError without jinja2, or for a source that is no template.
    """
    try:
        from jinja2 import TemplateError, ext, nodes
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ModuleNotFoundError as e:
        raise InputError("chats need the library jinja2", "pip install 'stagecut[text]'") from e

    class Generation(ext.Extension):
        """`{% generation %}` marks answers to train on, and changes no text."""

        tags = {"generation"}  # noqa: RUF012 -- as jinja2 declares it

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=line)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[ext.loopcontrols, Generation]
    )
    environment.filters["tojson"] = _as_json
    environment.globals |= {"raise_exception": _raise, "strftime_now": _now}
    try:
        return environment.from_string(source)
    except TemplateError as e:
        raise InputError(f"the checkpoint's chat template cannot be read: {e}") from e


def rendered_chat(template: Any, messages: list[Any], special: dict[str, str]) -> str:
    """The text of a chat, up to where the answer begins.  Raises InputError.

    `special`: special tokens by the names that templates use.
    """
    try:
        return template.render(messages=messages, tools=None, documents=None, add_generation_prompt=True, **special)
    except Exception as e:
        raise InputError(f"the chat template cannot render these messages: {e}") from e


def _as_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """JSON as it is: jinja2's own filter writes `<` and the like as escapes, for pages."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _now(format: str) -> str:
    return datetime.now().strftime(format)


def _raise(message: str) -> None:
    raise ValueError(message)
