"""Chat templates as transformers renders them."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.errors import InputError
from runtime.generation.prompts.chat_template import compiled_template, rendered_chat

CHAT = [{"role": "system", "content": "Be <b>brief</b> & kind."}, {"role": "user", "content": "Don't é 😀"}]


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m | tojson }}\n{% endfor %}",
        "{{ messages | tojson(indent=2) }}",
        "{{ {'b': 1, 'a': 'é'} | tojson(sort_keys=true, ensure_ascii=true, separators=(',', ':')) }}",
        "{% if tools is not none %}tools{% endif %}{% if documents is none %}no documents{% endif %}",
        "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
        "{% if strftime_now is defined %}{{ strftime_now('%Y') | length }}{% endif %}",
        "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}  {{ m.content }}\n{% endfor %}",
        "{{ bos_token }}{% if add_generation_prompt %}me:{% endif %}{{ missing }}",
    ],
)
def test_a_chat_is_rendered_as_by_transformers(template: str) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    special: Any = {"bos_token": "<s>"}
    [wanted], _ = render_jinja_template([CHAT], chat_template=template, add_generation_prompt=True, **special)
    assert rendered_chat(compiled_template(template), CHAT, special) == wanted


def test_what_is_no_template() -> None:
    with pytest.raises(InputError, match="the checkpoint's chat template cannot be read: unexpected '}'"):
        compiled_template("{% if } %}")
