"""Kernels from the cache: found again, verified, and compiled anew if the cache cannot be used."""

import sys
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tinyllm.config import WeightsKind
from tinyllm.errors import UsageError
from tinyllm.kernels.decode import cache
from tinyllm.kernels.decode.cache import load_decode_kernels
from tinyllm.machine.compiled_cache import CompiledCache


@pytest.fixture(scope="module")
def object_file() -> bytes:
    return cache.compile_kernels("fp32")


@pytest.fixture
def compiled(object_file: bytes, monkeypatch: pytest.MonkeyPatch) -> list[WeightsKind]:
    """The kinds of weights compiled during the test; each compilation returns the same object file."""
    kinds: list[WeightsKind] = []

    def compile_kernels(kind: WeightsKind) -> bytes:
        kinds.append(kind)
        return object_file

    monkeypatch.setattr(cache, "compile_kernels", compile_kernels)
    return kinds


@pytest.fixture
def lines(compiled: list[WeightsKind]) -> list[str]:
    """The announced lines."""
    return []


def test_the_second_start_finds_the_code(tmp_path: Path, lines: list[str]) -> None:
    load_decode_kernels("fp32", tmp_path / "kernels", lines.append)
    assert len(lines) == 1
    assert "compiling the fp32 engine" in lines[0]
    load_decode_kernels("fp32", tmp_path / "kernels", lines.append)
    assert len(lines) == 1


@pytest.mark.parametrize("damage", [lambda content: content[:-9], lambda content: b"", lambda content: content + b"!"])
def test_damaged_code_is_compiled_again(tmp_path: Path, lines: list[str], damage: Callable[[bytes], bytes]) -> None:
    load_decode_kernels("fp32", tmp_path, lines.append)
    (file,) = tmp_path.glob("fp32-*.o")
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    load_decode_kernels("fp32", tmp_path, lines.append)
    assert len(lines) == 2
    assert file.read_bytes() == whole


def test_a_folder_that_cannot_be_written_costs_one_line(tmp_path: Path, lines: list[str]) -> None:
    (tmp_path / "file").write_text("in the way of a folder")
    load_decode_kernels("fp32", tmp_path / "file" / "kernels", lines.append)
    assert len(lines) == 2
    assert "not cached" in lines[1]


def test_a_folder_that_others_may_write_to_is_not_read(
    tmp_path: Path, lines: list[str], compiled: list[WeightsKind]
) -> None:
    load_decode_kernels("fp32", tmp_path / "kernels", lines.append)
    (tmp_path / "kernels").chmod(0o777)
    load_decode_kernels("fp32", tmp_path / "kernels", lines.append)
    assert compiled == ["fp32", "fp32"]
    assert "others may write to it" in lines[1]
    assert len(lines) == 3


@pytest.mark.parametrize("value", ["1", "2"])
def test_numba_without_its_compiler_is_one_error(
    tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("NUMBA_DISABLE_JIT", value)
    monkeypatch.delitem(sys.modules, "numba.core.config", raising=False)
    with pytest.raises(UsageError, match="NUMBA_DISABLE_JIT is set, so the CPU engine cannot be compiled; unset it"):
        load_decode_kernels("fp32", tmp_path, lines.append)
    assert lines == []


def test_threads_share_one_compilation_and_keep_numbas_settings(tmp_path: Path) -> None:
    config: Any = import_module("numba.core.config")
    before, lines = config.OPT, list[str]()
    threads = [threading.Thread(target=load_decode_kernels, args=("fp32", tmp_path, lines.append)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert config.OPT is before
    assert len(lines) == 1
    assert len(list(tmp_path.glob("*.o"))) == 1


def test_code_of_another_cpu_or_version_is_not_used(
    tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    load_decode_kernels("fp32", tmp_path, lines.append)
    monkeypatch.setattr(cache, "version", lambda name: "another")
    load_decode_kernels("fp32", tmp_path, lines.append)
    assert len(list(tmp_path.glob("*.o"))) == 2


def test_code_that_another_process_cached_meanwhile_is_no_error(
    tmp_path: Path, lines: list[str], object_file: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compile_after_another_process(kind: WeightsKind) -> bytes:
        CompiledCache(tmp_path, lines.append).keep(kind, cache._key(), ".o", object_file)
        return object_file

    monkeypatch.setattr(cache, "compile_kernels", compile_after_another_process)
    load_decode_kernels("fp32", tmp_path, lines.append)
    assert len(list(tmp_path.glob("*.o"))) == 1
    assert not any("not cached" in line for line in lines)


def test_the_key_covers_every_module_of_the_program() -> None:
    folder = Path(cache.__file__).parent
    compiled = {path.stem for path in folder.glob("*.py") if "from numba import" in path.read_text(encoding="utf-8")}
    assert compiled | {"blocks", "plan", "choice", "selection"} <= set(cache.MODULES)
