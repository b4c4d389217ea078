"""Two hosts as network namespaces with their own addresses: one run over the wire, and one host that is cut off."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import pytest

from faults import trials
from rank_processes import train_on
from tinyllm.doctor.cost import Cost, Rate
from tinyllm.doctor.traffic import GRADIENT_BYTES
from tinyllm.model.size import num_parameters
from training_runs import make_config

ADDRESSES = ("10.213.77.1", "10.213.77.2")
PORT = 29477
SILENCE_SECONDS = 6
PROGRAM = f"""
import sys
from tinyllm.cli.app import main
from tinyllm.machine import heartbeat
heartbeat.SILENCE_SECONDS, heartbeat.BEAT_SECONDS = {SILENCE_SECONDS}, 0.5
main(sys.argv[1:])
"""
"""A program that is `tinyllm`, but takes silence for a cut after a few seconds."""


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


class Hosts:
    """Two network namespaces, joined by one pair of virtual devices."""

    def __init__(self) -> None:
        self.names = [f"tinyllm-{os.getpid()}-{number}" for number in (0, 1)]
        self.started: list[subprocess.Popen[str]] = []

    def open(self) -> None:
        for name in self.names:
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", self.names[0], "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", self.names[1])
        for name, address in zip(self.names, ADDRESSES, strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", "wire")
            ip("-n", name, "link", "set", "wire", "up")

    def cut(self) -> None:
        """Cuts the wire."""
        ip("-n", self.names[1], "link", "set", "wire", "down")

    def slow_down(self, *rules: str) -> None:
        """Gives both ends of the wire a queue of `tc`. Raises CalledProcessError if the kernel does not have it."""
        for name in self.names:
            ip("netns", "exec", name, "tc", "qdisc", "add", "dev", "wire", "root", *rules)

    def sent_bytes(self) -> list[int]:
        """The bytes that each host has put on the wire, with all headers."""
        return [
            json.loads(ip("-n", name, "-s", "-j", "link", "show", "wire"))[0]["stats64"]["tx"]["bytes"]
            for name in self.names
        ]

    def close(self) -> None:
        """Kills what is left, and removes the namespaces."""
        end(self.started, 0)
        for name in self.names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)

    def start(self, folder: Path, arguments: Sequence[str]) -> list[subprocess.Popen[str]]:
        """Starts torchrun with one rank on each host; the output goes to `folder`."""
        folder.mkdir()
        program = folder / "program.py"
        program.write_text(PROGRAM)
        launch = ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", "hosts"]
        launch += ["--rdzv-endpoint", f"{ADDRESSES[0]}:{PORT}"]
        path = os.pathsep.join(filter(None, sys.path))
        environment = {**os.environ, "GLOO_SOCKET_IFNAME": "wire", "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
        processes = []
        for name, address in zip(self.names, ADDRESSES, strict=True):
            command = ["ip", "netns", "exec", name, sys.executable, "-m", "torch.distributed.run", *launch]
            # torchrun knows its own host by its name, which both namespaces share.
            command += ["--rdzv-conf", f"is_host={int(address == ADDRESSES[0])}"]
            command += ["--local-addr", address, str(program), *arguments]
            with (folder / f"{address}.txt").open("w") as output:
                processes.append(
                    subprocess.Popen(
                        command, env=environment, stdout=output, stderr=output, text=True, start_new_session=True
                    )
                )
        self.started += processes
        return processes


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    found = Hosts()
    try:
        found.open()
    except (OSError, subprocess.CalledProcessError) as error:
        found.close()
        pytest.skip(f"this machine lets tests make no network namespaces: {type(error).__name__}")
    try:
        yield found
    finally:
        found.close()


def outputs(folder: Path) -> str:
    return "".join((folder / f"{address}.txt").read_text() for address in ADDRESSES)


def end(processes: Sequence[subprocess.Popen[str]], seconds: float) -> list[int]:
    """Waits for all processes at most `seconds`, and kills what is left of their sessions; returns the exit codes."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(process.poll() is None for process in processes):
        time.sleep(0.1)
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return [process.wait() for process in processes]


@pytest.mark.slow
def test_two_hosts_train_as_two_ranks_of_one(hosts: Hosts, tiny_shards: Path, tmp_path: Path) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    train_on(2, whole, trials.train_arguments(tiny_shards, whole))
    processes = hosts.start(tmp_path / "hosts", trials.train_arguments(tiny_shards, run))
    assert end(processes, 300) == [0, 0], outputs(tmp_path / "hosts")
    assert trials.metrics(run) == trials.metrics(whole)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_hosts_send_the_bytes_of_the_cost_model(
    parallel: Literal["ddp", "fsdp"], hosts: Hosts, tiny_shards: Path, tmp_path: Path
) -> None:
    """The difference of two runs is that of their updates alone; headers and small exchanges take a few percent.

    gloo has no ring reduce-scatter: it sums whole tensors, and so sends twice the bytes.
    """
    shape = {"hidden_size": 128, "num_layers": 4, "num_heads": 4, "num_kv_heads": 4, "context_length": 64}
    settings = {"sequence_length": 16, "batch_size": 2, "accumulation_steps": 2, "eval_interval": 1000}
    settings |= {"checkpoint_interval": 1000}
    flags = ["--training.parallel", parallel, "--model.dropout", "0"]
    flags += [each for name, value in shape.items() for each in (f"--model.{name}", str(value))]
    flags += [each for name, value in settings.items() for each in (f"--training.{name}", str(value))]
    sent = []
    for num_steps in (2, 12):
        before, folder = hosts.sent_bytes(), tmp_path / f"hosts-{num_steps}"
        arguments = trials.train_arguments(
            tiny_shards, tmp_path / f"run-{num_steps}", *flags, "--steps", str(num_steps)
        )
        assert end(hosts.start(folder, arguments), 300) == [0, 0], outputs(folder)
        sent.append([after - each for after, each in zip(hosts.sent_bytes(), before, strict=True)])
    config = make_config(tiny_shards, model=shape, training=settings)
    expected = Cost(config, 2, Rate(1.0, "")).wire_bytes(parallel)
    if parallel == "fsdp":
        expected += num_parameters(config.model) * GRADIENT_BYTES // 2
    measured = [(long - short) / 10 for short, long in zip(*sent, strict=True)]
    print(f"{parallel}: {expected:,} bytes an update expected, {measured} measured")
    assert measured == pytest.approx([expected] * 2, rel=0.1)


@pytest.mark.slow
def test_a_slow_link_delays_a_run_and_changes_nothing(hosts: Hosts, tiny_shards: Path, tmp_path: Path) -> None:
    """netem delays and loses packets where the kernel has it; else tbf alone limits the rate."""
    try:
        hosts.slow_down("netem", "delay", "20ms", "5ms", "loss", "1%", "rate", "1mbit")
    except subprocess.CalledProcessError:
        hosts.slow_down("tbf", "rate", "1mbit", "burst", "32kbit", "latency", "400ms")
    whole, run = tmp_path / "whole", tmp_path / "run"
    train_on(2, whole, trials.train_arguments(tiny_shards, whole))
    processes = hosts.start(tmp_path / "hosts", trials.train_arguments(tiny_shards, run))
    assert end(processes, 300) == [0, 0], outputs(tmp_path / "hosts")
    assert trials.metrics(run) == trials.metrics(whole)


@pytest.mark.slow
def test_a_host_that_is_cut_off_ends_the_run_and_it_goes_on(hosts: Hosts, tiny_shards: Path, tmp_path: Path) -> None:
    run, folder = tmp_path / "run", tmp_path / "hosts"
    arguments = trials.train_arguments(tiny_shards, run, "--steps", "5000")
    processes = hosts.start(folder, arguments)
    deadline = time.monotonic() + 300
    while trials.last_logged_step(run) < 20:
        assert time.monotonic() < deadline, outputs(folder)
        assert [process.poll() for process in processes] == [None, None], outputs(folder)
        time.sleep(0.1)
    hosts.cut()
    cut = time.monotonic()
    silent = re.compile(
        r"^tinyllm: .* has been silent for .*; a restart goes on from the last checkpoint$", re.MULTILINE
    )
    lost = re.compile(r"^tinyllm: rank . lost another rank", re.MULTILINE)
    while not all(
        silent.search(text) or lost.search(text)
        for text in ((folder / f"{address}.txt").read_text() for address in ADDRESSES)
    ):
        assert time.monotonic() - cut < 60, outputs(folder)
        time.sleep(0.2)
    end(processes, 60)
    assert trials.damaged_checkpoints(run) == []
    reached = trials.newest_step(run)
    train_on(2, run, [*arguments[:-1], str(reached + 2)])
    assert trials.newest_step(run) == reached + 2
