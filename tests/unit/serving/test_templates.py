"""Templates in their sandbox: what transformers accepts, and bounds on time and size."""

import json
import sys
import time
from pathlib import Path

import pytest

from tinyllm.errors import FormatError
from tinyllm.serving import templates
from tinyllm.serving.templates import RENDER_SECONDS, compile_template, read_template, render_template

MESSAGES = [{"role": "system", "content": "one"}, {"role": "user", "content": "two"}]


def render(template: str, **tokens: str) -> str:
    """The text of two messages."""
    return render_template(compile_template(template), MESSAGES, tokens)


def test_templates_are_read_from_either_file(tmp_path: Path) -> None:
    config = tmp_path / "tokenizer_config.json"
    assert read_template(None) is None
    assert read_template(tmp_path) is None
    config.write_text("{}")
    assert read_template(tmp_path) is None
    config.write_text(json.dumps({"chat_template": "one"}))
    assert read_template(tmp_path) == "one"
    named = [{"name": "tool_use", "template": "two"}, {"name": "default", "template": "three"}]
    config.write_text(json.dumps({"chat_template": named}))
    assert read_template(tmp_path) == "three"
    (tmp_path / "chat_template.jinja").write_text("four")
    assert read_template(tmp_path) == "four"


def test_a_template_that_is_not_utf_8_is_told(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(FormatError, match=r"chat_template\.jinja is not UTF-8"):
        read_template(tmp_path)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{% for m in messages %}{% if loop.index == 2 %}{% break %}{% endif %}{{ m.role }}{% endfor %}", "system"),
        ("{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.role }}{% endfor %}", "user"),
        ("{% generation %}{{ messages[0].content }}{% endgeneration %}!", "one!"),
        ("{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}", "21"),
        ("{{ messages[0] | tojson }}", '{"role": "system", "content": "one"}'),
        ("{{ 'é' | tojson(ensure_ascii=true) }}", '"\\u00e9"'),
        ("{{ unk_token }}", "<unk>"),
    ],
)
def test_templates_of_transformers_are_rendered(template: str, expected: str) -> None:
    assert render(template, unk_token="<unk>") == expected


@pytest.mark.parametrize(
    ("template", "word"),
    [("{% if %}", "line 1"), ("\n{% nothing %}", "line 2"), ("{{ (" + "(" * 5000, ""), ("{% break %}", "")],
)
def test_a_text_that_is_no_template_is_told_with_its_owner(template: str, word: str) -> None:
    with pytest.raises(FormatError, match="the chat template of here cannot be compiled") as caught:
        compile_template(template, "here")
    assert word in str(caught.value)


ENDLESS = {
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "condition": "{% for i in range(99999) if range(99999) | sum < 0 %}{% endfor %}",
    "recursive loop": "{% set x = [] %}{% for i in range(99999) recursive %}{{ loop(range(99999)) if loop.depth < 5 }}"
    "{% endfor %}",
    "macro": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}",
    "filter": "{% set r = range(99999) | list %}{{ ([r] * 40) | map('sort') | map('sort') | map('sum') | list }}" * 100,
    "numbers": "{% set s = namespace(x=3) %}{% for i in range(99) %}{% set s.x = s.x * s.x %}{% endfor %}",
}


@pytest.mark.parametrize("what", ENDLESS)
def test_a_template_that_runs_for_too_long_is_ended(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "RENDER_SECONDS", RENDER_SECONDS / 4)
    before, start = sys.gettrace(), time.thread_time()
    with pytest.raises(ValueError, match="it runs for longer than"):
        render(ENDLESS[what])
    assert time.thread_time() - start < 3 * RENDER_SECONDS
    assert sys.gettrace() is before


@pytest.mark.parametrize(
    "template",
    [
        "{{ 'x' * 10 ** 10 }}",
        "{{ [1] * 10 ** 10 }}",
        "{{ 10 ** (10 ** 10) }}",
        "{% set s = namespace(x='abc') %}{% for i in range(40) %}{% set s.x = s.x ~ s.x %}{% endfor %}",
        "{% set s = namespace(x='abc') %}{% for i in range(40) %}{% set s.x = s.x + s.x %}{% endfor %}{{ s.x }}",
        "{% set x = 'x' * 4000000 %}{{ x }}{{ x }}",
        "{% macro f(x) %}{{ x }}{{ x }}{% endmacro %}{% set s = namespace(x='abc') %}"
        "{% for i in range(40) %}{% set s.x = f(s.x) %}{% endfor %}",
    ],
)
def test_a_template_that_makes_too_much_is_ended(template: str) -> None:
    with pytest.raises(ValueError, match="more than 4,194,304 characters or items"):
        render(template)
