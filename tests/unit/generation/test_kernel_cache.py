"""Compiled code on disk: found again, never trusted blindly, and done without where it cannot be."""

from pathlib import Path

import pytest

from tinyllm.generation import kernel_cache
from tinyllm.generation.kernel_cache import compile_kernels, load_kernels


@pytest.fixture(scope="module")
def machine_code() -> bytes:
    return compile_kernels("fp32")


@pytest.fixture
def lines(machine_code: bytes, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is announced; a compilation takes what was compiled once."""
    monkeypatch.setattr(kernel_cache, "compile_kernels", lambda kind: machine_code)
    return []


def test_the_second_start_finds_the_code(tmp_path: Path, lines: list[str]) -> None:
    load_kernels("fp32", tmp_path / "kernels", lines.append)
    assert len(lines) == 1
    assert "compiling the fp32 engine" in lines[0]
    load_kernels("fp32", tmp_path / "kernels", lines.append)
    assert len(lines) == 1


@pytest.mark.parametrize("damage", [lambda content: content[:-9], lambda content: b"", lambda content: content + b"!"])
def test_damaged_code_is_compiled_again(tmp_path: Path, lines: list[str], damage) -> None:
    load_kernels("fp32", tmp_path, lines.append)
    (file,) = tmp_path.glob("*.o")
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    load_kernels("fp32", tmp_path, lines.append)
    assert len(lines) == 2
    assert file.read_bytes() == whole


def test_a_folder_that_cannot_be_written_costs_one_line(tmp_path: Path, lines: list[str]) -> None:
    (tmp_path / "file").write_text("in the way of a folder")
    load_kernels("fp32", tmp_path / "file" / "kernels", lines.append)
    assert len(lines) == 2
    assert "not kept" in lines[1]


def test_code_of_another_cpu_or_version_is_not_used(
    tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    load_kernels("fp32", tmp_path, lines.append)
    monkeypatch.setattr(kernel_cache, "version", lambda name: "another")
    load_kernels("fp32", tmp_path, lines.append)
    assert len(list(tmp_path.glob("*.o"))) == 2


def test_two_at_once_both_run(tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process wins while this one compiles."""
    compile_once = kernel_cache.compile_kernels

    def compile_while_another_does(kind):
        monkeypatch.setattr(kernel_cache, "compile_kernels", compile_once)
        load_kernels("fp32", tmp_path, lines.append)
        return compile_once(kind)

    monkeypatch.setattr(kernel_cache, "compile_kernels", compile_while_another_does)
    load_kernels("fp32", tmp_path, lines.append)
    assert len(list(tmp_path.glob("*.o"))) == 1
    assert not any("not kept" in line for line in lines)


def test_the_key_of_the_cache_knows_every_module_of_the_program() -> None:
    folder = Path(kernel_cache.__file__).parent
    compiled = {path.name for path in folder.glob("*.py") if "from numba import" in path.read_text(encoding="utf-8")}
    assert compiled
    assert compiled <= set(kernel_cache.SOURCES)
