"""Compiled code on disk: found again, never trusted blindly, and done without where it cannot be."""

import os
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tinyllm.errors import UsageError
from tinyllm.kernels.decode import cache
from tinyllm.kernels.decode.cache import Part, compile_parts, load_decode_kernels


@pytest.fixture(scope="module")
def object_files() -> dict[Part, bytes]:
    complaints: list[str] = []
    object_files = compile_parts(["fp32", "choices"], complaints.append)
    assert not complaints, "where there are two cores a second process compiles"
    return object_files


@pytest.fixture
def compiled(object_files: dict[Part, bytes], monkeypatch: pytest.MonkeyPatch) -> list[Part]:
    """What this process compiles, on one core; it takes what was compiled once."""
    parts: list[Part] = []

    def compile_kernels(part: Part) -> bytes:
        parts.append(part)
        return object_files["choices" if part == "choices" else "fp32"]

    monkeypatch.setattr(cache, "compile_kernels", compile_kernels)
    monkeypatch.setattr(cache, "num_available_cores", lambda: 1)
    return parts


@pytest.fixture
def lines(compiled: list[Part]) -> list[str]:
    """What is announced."""
    return []


def test_the_second_start_finds_the_code(tmp_path: Path, lines: list[str]) -> None:
    load_decode_kernels("fp32", tmp_path / "kernels", lines.append)
    assert len(lines) == 1
    assert "compiling the fp32 engine" in lines[0]
    load_decode_kernels("fp32", tmp_path / "kernels", lines.append)
    assert len(lines) == 1


def test_choices_are_compiled_once_for_all_kinds_of_weights(
    tmp_path: Path, lines: list[str], compiled: list[Part]
) -> None:
    load_decode_kernels("fp32", tmp_path, lines.append)
    load_decode_kernels("int8", tmp_path, lines.append)
    assert compiled == ["fp32", "choices", "int8"]


@pytest.mark.parametrize(
    ("program", "complaint"),
    [
        ("import sys; sys.exit('no room for it')", "no room for it"),
        ("import os; os.abort()", "it ended with -6"),
        (cache.COMPILE_HERE, f"it would compile other sources, those in {Path(cache.__file__).parent}"),
    ],
)
def test_without_the_second_process_this_one_compiles_all(
    compiled: list[Part],
    object_files: dict[Part, bytes],
    monkeypatch: pytest.MonkeyPatch,
    program: str,
    complaint: str,
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(cache, "num_available_cores", lambda: 2)
    monkeypatch.setattr(cache, "COMPILE_HERE", program)
    monkeypatch.setattr(cache, "_key", lambda: "of other sources")
    assert compile_parts(["fp32", "choices"], lines.append) == object_files
    assert compiled == ["fp32", "choices"]
    assert lines == [f"a second process could not compile the choices, so this one does: {complaint}"]


def test_where_no_process_can_be_started_this_one_compiles_all(
    compiled: list[Part], object_files: dict[Part, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(cache, "num_available_cores", lambda: 2)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert compile_parts(["fp32", "choices"], lines.append) == object_files
    assert lines == ["a second process could not compile the choices, so this one does: No such file or directory"]


def test_what_python_prints_when_it_starts_is_no_machine_code(
    object_files: dict[Part, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('a greeting')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(cache, "num_available_cores", lambda: 2)
    monkeypatch.setattr(cache, "compile_kernels", lambda part: b"")
    assert compile_parts(["fp32", "choices"], pytest.fail)["choices"] == object_files["choices"]


@pytest.mark.parametrize("part", ["fp32", "choices"])
@pytest.mark.parametrize("damage", [lambda content: content[:-9], lambda content: b"", lambda content: content + b"!"])
def test_damaged_code_is_compiled_again(
    tmp_path: Path, lines: list[str], part: Part, damage: Callable[[bytes], bytes]
) -> None:
    load_decode_kernels("fp32", tmp_path, lines.append)
    (file,) = tmp_path.glob(f"{part}-*.o")
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


def test_a_folder_that_others_may_write_to_is_not_read(tmp_path: Path, lines: list[str], compiled: list[Part]) -> None:
    load_decode_kernels("fp32", tmp_path / "kernels", lines.append)
    (tmp_path / "kernels").chmod(0o777)
    load_decode_kernels("fp32", tmp_path / "kernels", lines.append)
    assert compiled == ["fp32", "choices"] * 2
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


def test_numba_settings_of_the_process_stay_whatever_threads_compile() -> None:
    config: Any = import_module("numba.core.config")
    before = config.OPT
    threads = [threading.Thread(target=cache.compile_kernels, args=("choices",)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert config.OPT is before


def test_code_of_another_cpu_or_version_is_not_used(
    tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    load_decode_kernels("fp32", tmp_path, lines.append)
    monkeypatch.setattr(cache, "version", lambda name: "another")
    load_decode_kernels("fp32", tmp_path, lines.append)
    assert len(list(tmp_path.glob("*.o"))) == 4


def test_two_at_once_both_run(tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process wins while this one compiles."""
    compile_once = cache.compile_kernels

    def compile_while_another_does(kind: Part) -> bytes:
        monkeypatch.setattr(cache, "compile_kernels", compile_once)
        load_decode_kernels("fp32", tmp_path, lines.append)
        return compile_once(kind)

    monkeypatch.setattr(cache, "compile_kernels", compile_while_another_does)
    load_decode_kernels("fp32", tmp_path, lines.append)
    assert len(list(tmp_path.glob("*.o"))) == 2
    assert not any("not cached" in line for line in lines)


def test_the_key_of_the_cache_knows_every_module_of_the_program() -> None:
    folder = Path(cache.__file__).parent
    compiled = {path.name for path in folder.glob("*.py") if "from numba import" in path.read_text(encoding="utf-8")}
    assert compiled
    assert compiled <= set(cache.SOURCES)
