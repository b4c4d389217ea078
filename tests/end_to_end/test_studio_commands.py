"""The commands that the playground offers give the text that it shows, whatever the prompt is."""

import io
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

import pytest

import tinyllm
from served_engine import Served, serving, tokens_in
from tinyllm.cli.app import main
from tinyllm.model_dir import bundled_model, read_tokenizer

PROMPTS = {
    "plain": "Once upon a time",
    "quotes": "a 'b' \"c\" `d` $HOME $(touch /tmp/never) \\n \\",
    "lines": "one\ntwo\n",
    "html": "<script>alert(1)</script>",
    "shell": "; rm -rf x & | > < * ? [a] {b} ~ ! #",
    "option": "--help",
    "dash": "-",
    "file": "FILE:/etc/hostname",
    "home": "~root",
    "carriage return": "a\r\nb\rc",
    "mark": "\ufeffOnce",
    "nul": "a\0b",
    "spaces": "   ",
    "empty": "",
    "unicode": "Käse 奶酪 🦊 \u202eabc",
    "percent": "%s {0} {{x}}",
}
SETTINGS: dict[str, Any] = {"max_tokens": 8, "seed": 11, "temperature": 0.9, "top_k": 40, "presence_penalty": -0.5}


@pytest.fixture(scope="module")
def server(user_cache: Path) -> Iterator[Served]:
    with serving(tinyllm.load(device="cpu"), key="the-key") as served:
        yield served


def ask(server: Served, **body: Any) -> tuple[str, dict[str, str]]:
    """The prompt with its continuation, and the commands."""
    events = server.generate(**SETTINGS, **body)
    tokenizer = read_tokenizer(bundled_model())
    ids = [token["id"] for token in tokens_in(events)]
    prompt = [token["id"] for token in events[0][1]["tokens"]]
    decoder = tokenizer.stream()
    for id in prompt:
        decoder.push(id)
    new = "".join(decoder.push(id) for id in ids if id not in tokenizer.end_ids) + decoder.finish()
    return tokenizer.decode(prompt) + new, events[-1][1]["command"]


def run_python(program: str) -> str:
    """The output of a program, without its last newline."""
    written = io.StringIO()
    with redirect_stdout(written):
        exec(program, {})
    return written.getvalue().removesuffix("\n")


def run_words(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The output of the command line with these words, in this process."""
    if words[:2] == ["python", "-c"]:
        return run_python(words[2])
    assert words[0] == "tinyllm"
    capsys.readouterr()
    with suppress(SystemExit):
        main(words[1:])
    return capsys.readouterr().out.removesuffix("\n")


def run_curl(command: str, key: str) -> str:
    """The text that the server answers to a curl command, run by a shell."""
    environment = {"PATH": "/usr/bin:/bin", "TINYLLM_API_KEY": key}
    done = subprocess.run(["sh", "-c", command], capture_output=True, check=True, env=environment)
    answer = json.loads(done.stdout)
    return str(answer["choices"][0]["text"])


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_every_command_gives_the_text(
    server: Served, prompt: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    text, commands = ask(server, prompt=prompt)
    assert run_python(commands["python"]) == text
    assert run_words(shlex.split(commands["shell"]), capsys) == text
    assert "the-key" not in json.dumps(commands)
    if shutil.which("curl") and sys.platform != "win32":
        assert text.endswith(run_curl(commands["curl"], "the-key"))
    assert list(tmp_path.iterdir()) == []


def test_plain_prompts_have_a_short_command(server: Served) -> None:
    _, commands = ask(server, prompt="Once upon a time")
    settings = "--max-new-tokens=8 --temperature=0.9 --top-k=40 --presence-penalty=-0.5 --seed=11"
    assert commands["shell"] == f"tinyllm generate 'Once upon a time' {settings} --device=cpu"
    assert "model = tinyllm.load(device='cpu')" in commands["python"]


def test_tokens_that_no_text_gives_are_named_by_id(server: Served, capsys: pytest.CaptureFixture[str]) -> None:
    ids = [1, 633, 675, 1, 1]
    text, commands = ask(server, tokens=ids)
    assert str(ids) in commands["python"]
    assert run_python(commands["python"]) == text
    assert run_words(shlex.split(commands["shell"]), capsys) == text


def test_a_model_of_a_path_with_quotes_is_named(
    make_model_dir: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_model_dir("it's a 'model'")
    with serving(tinyllm.load(path, weights="fp32")) as served:
        events = served.generate(prompt="Once upon", max_tokens=6, seed=3)
        commands = events[-1][1]["command"]
        expected = "Once upon" + tinyllm.load(path).generate("Once upon", max_new_tokens=6, seed=3)[0].text
        assert run_python(commands["python"]) == expected
        assert run_words(shlex.split(commands["shell"]), capsys) == expected
        assert expected.endswith(run_curl(commands["curl"], ""))
