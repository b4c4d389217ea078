"""The requests of docs/serving.md work against a real server, and its unit files have the flags that exist."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from server_process import ServerProcess

PAGE = (Path(__file__).parents[2] / "docs/serving.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8080"
Start = Callable[..., ServerProcess]


def curl_commands() -> list[list[str]]:
    """The words of each curl command of the page."""
    lines = PAGE.replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.strip().startswith("curl ")]


def test_every_curl_command_is_answered(start_server: Start) -> None:
    server, commands = start_server(), curl_commands()
    assert len(commands) == 4
    for words in commands:
        (url,) = [word for word in words if word.startswith(ADDRESS)]
        url = url.replace(ADDRESS, server.url)
        if "-d" in words:
            body = json.loads(words[words.index("-d") + 1])
            answer = httpx.post(url, json=body, timeout=60)
        else:
            answer = httpx.get(url, timeout=60)
        assert answer.status_code == 200, (words, answer.text)


def test_the_python_of_the_page_runs(start_server: Start, capsys: pytest.CaptureFixture[str]) -> None:
    server = start_server()
    code = PAGE[PAGE.index("    from openai import OpenAI") : PAGE.index("Parameters that OpenAI does not have")]
    lines = [line.removeprefix("    ") for line in code.splitlines()]
    exec("\n".join(lines).replace(ADDRESS, server.url), {})
    assert "there was a lively girl named Maya" in capsys.readouterr().out


def test_flags_and_limits_of_the_page_exist() -> None:
    from tinyllm.cli.serve import serve
    from tinyllm.cli.server_options import ServerOptions
    from tinyllm.serving import schemas

    flags = set(re.findall(r"--(?:host|port|api|max|allow)[a-z-]*", PAGE))
    names = serve.__annotations__ | ServerOptions.__annotations__
    assert {"--" + name.replace("_", "-") for name in names} >= flags
    named = set(re.findall(r"`([a-z_]+)`", PAGE[PAGE.index("| parameter |") : PAGE.index("An unknown parameter")]))
    fields = set(schemas.CompletionRequest.model_fields) | set(schemas.ChatRequest.model_fields)
    assert fields - named == {"model", "user", "max_completion_tokens", "stream_options"}
    assert named <= fields
