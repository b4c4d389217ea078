"""Fixtures that many tests share: a small tokenizer, models and shards of it, and a cache for compiled code."""

import functools
import gc
import io
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # One thread for each parallel process and its children: threads that wait for a processor spin and slow all others.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from sentencepiece import SentencePieceTrainer

from tinyllm.config import ModelConfig, WeightsKind
from tinyllm.kernels.decode.cache import Kernels, load_decode_kernels
from tinyllm.machine.system import num_usable_cores
from tinyllm.model.transformer import Transformer
from tinyllm.model_dir import save_model
from tinyllm.shards.writer import prepare
from tinyllm.tokenizer.codec import Tokenizer

pytest_plugins = ["loopback", "object_store", "server_process"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--faults", choices=["fast", "full"], default="fast", help="how often tests/faults tries each promise"
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """One worker more than processors for `-n auto`, as a third of the tests' time is waiting for other processes.

    None, which leaves the number to pytest-xdist, if its environment variable is set.
    """
    return None if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ else num_usable_cores() + 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Prints the number of skipped tests for each reason."""
    skipped = terminalreporter.getreports("skipped")
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    lines = [f"{count} skipped: {reason}" for reason, count in reasons.most_common()]
    if config.option.markexpr:
        lines.append(f"only tests selected by -m '{config.option.markexpr}': make test-all runs the others too")
    if lines:
        terminalreporter.section("what did not run, and why")
        terminalreporter.write("".join(f"{line}\n" for line in lines))


def pytest_collection_finish() -> None:
    """Makes garbage collection rare: it took a fifth of the tests' CPU time, as the collected tests fill the memory."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Parallel test processes get whole files."""
    from file_scheduling import FileScheduling  # imported late: pytest works without xdist

    return FileScheduling(config, log)


@pytest.fixture
def record_copies(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[int]]:
    """Starts a list with the number of values of each tensor that becomes a list; `item` fails from then on."""

    def start() -> list[int]:
        copies: list[int] = []
        tolist = torch.Tensor.tolist

        def record(self: torch.Tensor) -> list[float]:
            copies.append(self.numel())
            return tolist(self)

        def refuse(self: torch.Tensor) -> float:
            raise AssertionError("a loss was copied by itself")

        monkeypatch.setattr(torch.Tensor, "tolist", record)
        monkeypatch.setattr(torch.Tensor, "item", refuse)
        return copies

    return start


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Tokenizer:
    """320 pieces, 256 of them bytes, trained on a few sentences."""
    sentences = [f"Once upon a time the {animal} saw a red ball." for animal in ("fox", "bear", "owl", "cat")]
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(sentences * 5),
        model_writer=model,
        model_type="bpe",
        vocab_size=320,
        byte_fallback=True,
        normalization_rule_name="identity",
        minloglevel=2,
    )
    return Tokenizer.from_bytes(model.getvalue(), "tiny.model")


@pytest.fixture
def tokenizer_file(tiny_tokenizer: Tokenizer, tmp_path: Path) -> Path:
    """The tiny tokenizer as a `.model` file."""
    path = tmp_path / "tiny.model"
    path.write_bytes(tiny_tokenizer.model_proto)
    return path


@pytest.fixture
def pipe_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Replaces standard input by the given bytes. Its text layer is Latin-1, so a reader must use the bytes."""
    return lambda content: monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="latin-1"))


@pytest.fixture
def make_model_dir(tmp_path: Path, tiny_tokenizer: Tokenizer) -> Callable[..., Path]:
    """Saves a model with random weights, large enough that its texts vary; arguments set fields of ModelConfig."""

    def make(name: str = "model", **fields: Any) -> Path:
        shape = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "context_length": 32}
        config = ModelConfig(vocab_size=tiny_tokenizer.vocab_size, **(shape | fields))
        torch.manual_seed(0)
        model = Transformer(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(8 if parameter.dim() > 1 else 1)
        save_model(tmp_path / name, model, config, tiny_tokenizer)
        return tmp_path / name

    return make


@pytest.fixture(scope="session")
def tiny_shards(tiny_tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shard directory of 200 short documents, enough for a few steps of training."""
    folder = tmp_path_factory.mktemp("tiny")
    animals, colours = ("fox", "bear", "owl", "cat"), ("red", "blue", "green")
    lines = [f"Once upon a time the {animals[i % 4]} number {i} saw a {colours[i % 3]} ball." for i in range(200)]
    (folder / "corpus.txt").write_text("\n".join(lines), encoding="utf-8")
    prepare(
        [folder / "corpus.txt"],
        tiny_tokenizer,
        folder / "shards",
        documents="line",
        validation_fraction=0.1,
        num_workers=1,
    )
    return folder / "shards"


@pytest.fixture(scope="session")
def user_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The session's cache folder for compiled code; parallel test processes share it."""
    folder = tmp_path_factory.getbasetemp()
    return (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "cache" / "tinyllm"


@pytest.fixture(scope="session")
def compiled_kernels(user_cache: Path) -> Callable[[WeightsKind], Kernels]:
    """A function that returns the CPU engine's kernels for a kind of weights, compiled once a session."""
    return functools.cache(lambda kind: load_decode_kernels(kind, user_cache / "kernels", lambda line: None))


@pytest.fixture(autouse=True, scope="session")
def _cache_of_this_session(user_cache: Path) -> Iterator[None]:
    """Commands cache compiled code in `user_cache` instead of the user's own folder."""
    with pytest.MonkeyPatch.context() as patch:
        for user in ("generation.engines.cpu_building", "training.path"):
            patch.setattr(f"tinyllm.{user}.cache_folder", lambda: user_cache)
        yield


@pytest.fixture(autouse=True, scope="session")
def _no_waiting_for_the_disk() -> Iterator[None]:
    """A sync of a test's own process does nothing, for no test cuts the power; it takes milliseconds otherwise.

    Commands in processes of their own sync as they do for users, and tests/faults traces the order of their calls.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(autouse=True, scope="session")
def _signals_of_a_terminal() -> None:
    """Lets SIGHUP arrive in this process and its children, also if the tests run under nohup, which ignores it."""
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
