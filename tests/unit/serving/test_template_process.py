"""Templates in a process of their own: it is ended if the sandbox cannot end a template, and the next one works."""

import os
import threading
import time
from collections.abc import Iterator

import pytest

from tinyllm.serving import template_process
from tinyllm.serving.template_process import TemplateProcess

MESSAGES = [{"role": "user", "content": "hé\nllo 🦊"}]
GREET = "{{ bos_token }}{{ messages[0].content }}"
HOSTILE = {
    "padding": '{{ "%999999999d" % 1 }}',
    "format": '{{ "{:999999999}".format(1) }}',
    "center": '{{ ("x" * 10) | center(2000000000) }}',
    "replace": "{{ ('x' * 4000000).replace('x', 'y' * 4000000) }}",
    "tabs": "{{ ('\\t' * 4000000).expandtabs(4000000) }}",
    "lists in lists": "{% set s = namespace(x='x') %}{% for i in range(40) %}{% set s.x = [s.x, s.x] %}{% endfor %}"
    "{{ s.x }}",
}


@pytest.fixture
def process() -> Iterator[TemplateProcess]:
    made = TemplateProcess()
    yield made
    made.close()


def test_conversations_are_rendered_by_one_process(process: TemplateProcess) -> None:
    for _ in range(2):
        assert process.render(GREET, MESSAGES, {"bos_token": "<s>"}) == "<s>hé\nllo 🦊"
    assert process._process is not None
    pid = process._process.pid
    with pytest.raises(ValueError, match=r"^no no$"):
        process.render("{{ raise_exception('no\\nno') }}", MESSAGES, {})
    process.render(GREET, MESSAGES, {})
    assert process._process.pid == pid


@pytest.mark.parametrize("what", HOSTILE)
def test_a_call_in_c_is_ended_and_the_next_conversation_works(what: str, process: TemplateProcess) -> None:
    with pytest.raises(ValueError, match=r"runs for longer than 1 s|too much memory|more than 4,194,304"):
        process.render(HOSTILE[what], MESSAGES, {})
    assert process.render(GREET, MESSAGES, {"bos_token": ""}) == "hé\nllo 🦊"


def test_an_answer_that_does_not_come_ends_the_process(
    process: TemplateProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a system that cannot bound the processor time of a process."""
    monkeypatch.setattr(template_process, "WAIT_SECONDS", 0.0)
    with pytest.raises(ValueError, match="runs for longer than"):
        process.render("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", MESSAGES, {})


def test_close_ends_a_conversation_that_is_being_rendered(process: TemplateProcess) -> None:
    process.render(GREET, MESSAGES, {})
    assert process._process is not None
    pid = process._process.pid
    errors = []

    def render() -> None:
        try:
            process.render(HOSTILE["padding"], MESSAGES, {})
        except ValueError as error:
            errors.append(str(error))

    thread = threading.Thread(target=render)
    thread.start()
    time.sleep(0.2)
    process.close()
    thread.join(30)
    assert not thread.is_alive()
    assert len(errors) == 1
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_process_that_nobody_closed_ends_with_its_owner() -> None:
    process = TemplateProcess()
    process.render(GREET, MESSAGES, {})
    assert process._process is not None
    pid = process._process.pid
    del process
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
