"""`tinyllm serve` as a person starts and stops it."""

import json
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from server_process import KEY, ServerProcess, read_all, request

Call = Callable[..., tuple[int, str, str]]
Start = Callable[..., ServerProcess]


def test_one_line_says_where_the_server_is(start_server: Start) -> None:
    server = start_server()
    assert server.said == [f"serving storybook at http://127.0.0.1:{server.port}/v1 (Ctrl-C ends)\n"]
    with server.client() as client:
        assert client.get("/health").json() == {"status": "ok"}
        assert client.get("/docs").status_code == 200
        found = client.post("/v1/completions", json={"prompt": "Once upon a time", "max_tokens": 4, "temperature": 0})
    assert found.json()["choices"][0]["text"] == " there was a lively"
    assert server.end(signal.SIGINT) == 0
    assert len(server.said) == 1, "no request is logged"


def test_several_models_are_chosen_by_name(
    start_server: Start, make_model_dir: Callable[..., Path], tmp_path: Path
) -> None:
    first = make_model_dir("first")
    run = tmp_path / "run"
    run.mkdir()
    make_model_dir("run/model", num_layers=1)
    server = start_server(first, run)
    with server.client() as client:
        assert [each["id"] for each in client.get("/v1/models").json()["data"]] == ["first", "run"]
        bodies = [{"model": name, "prompt": "Once", "temperature": 0} for name in ("first", "run")]
        texts = [client.post("/v1/completions", json=body).json()["choices"][0]["text"] for body in bodies]
        assert texts[0] != texts[1]
        default = client.post("/v1/completions", json={"prompt": "Once", "temperature": 0}).json()
        assert (default["model"], default["choices"][0]["text"]) == ("first", texts[0])


def test_the_key_may_come_from_a_file(start_server: Start, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    server = start_server("--host", "0.0.0.0", "--api-key-file", tmp_path / "key")
    with server.client() as client:
        assert client.get("/v1/models").status_code == 401
    with server.client(KEY) as client:
        assert client.get("/v1/models").status_code == 200
        assert client.get("/v1/models", headers={"Host": "evil.example"}).status_code == 403


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "0.0.0.0"], "--host 0.0.0.0 can be reached from other machines, so a key is needed"),
        (["--host", "no such host"], "cannot listen on no such host"),
        (["--port", "99999"], "cannot listen on 127.0.0.1, port 99999"),
        (["--api-key", "a b"], "one word of ASCII"),
        (["--api-key", ""], "one word of ASCII"),
        (["--api-key", "a", "--api-key-file", "b"], "two ways to give the key"),
        (["--api-key-file", "nothing"], "nothing"),
        (["--max-slots", "0"], "--max-slots is 0"),
        (["nothing"], "nothing does not exist"),
        (["one/m", "two/m"], "both named m"),
    ],
)
def test_a_wrong_call_is_one_line(arguments: list[str], message: str, call_tinyllm: Call) -> None:
    port = [] if "--port" in arguments else ["--port", "0"]
    code, out, error = call_tinyllm("serve", *port, *arguments)
    assert (code != 0, out) == (True, "")
    assert error.count("\n") == 1
    assert message in error


def test_a_port_in_use_is_one_line(call_tinyllm: Call) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, _, error = call_tinyllm("serve", "--port", taken.getsockname()[1])
    assert code == 2
    assert "in use; choose another host or port" in error


def test_a_signal_lets_running_texts_end_and_refuses_new_ones(start_server: Start) -> None:
    server = start_server()
    body = {"prompt": "Once", "max_tokens": 2000, "logit_bias": {"1": -100, "2": -100}, "stream": True}
    content = request("POST", "/v1/completions", json.dumps(body).encode())
    with server.connect() as stream, server.connect() as other:
        other.sendall(request("GET", "/health"))
        assert other.recv(65536)
        stream.sendall(content)
        assert stream.recv(1)
        codes: list[int] = []
        ending = threading.Thread(target=lambda: codes.append(server.end()))
        ending.start()
        time.sleep(0.2)
        with pytest.raises(ConnectionError):
            server.connect()
        assert read_all(stream).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        ending.join()
    assert codes == [0]
    assert len(server.said) == 1


def test_a_second_signal_cuts_texts_off_with_an_error(start_server: Start) -> None:
    server = start_server()
    body = {"prompt": "Once", "max_tokens": 16_000, "logit_bias": {"1": -100, "2": -100}, "stream": True}
    with server.connect() as stream:
        stream.sendall(request("POST", "/v1/completions", json.dumps(body).encode()))
        assert stream.recv(1)
        server.process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert server.process.poll() is None
        begin = time.monotonic()
        server.process.send_signal(signal.SIGINT)
        assert b"shutting_down" in read_all(stream)
    assert server.wait() == 0
    assert time.monotonic() - begin < 10
