"""The cache trusts only code that the user owns; tested with real files, folders and a real library."""

import ctypes
import errno
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import llvmlite.binding as llvm
import pytest
from llvmlite.binding.targets import FeatureMap

from tinyllm.machine import compiled_cache, system
from tinyllm.machine.compiled_cache import CompiledCache, code_key, load_library
from tinyllm.machine.user_cache import cache_folder

CODE = b"machine code"
OTHER = 4711

pytestmark = pytest.mark.skipif(not hasattr(os, "getuid"), reason="Windows protects a profile by access lists")


@pytest.fixture
def lines() -> list[str]:
    """The lines announced."""
    return []


@pytest.fixture
def folder(tmp_path: Path, lines: list[str]) -> Path:
    """A cache folder with one file that the cache wrote."""
    folder = tmp_path / "tinyllm" / "kernels"
    assert CompiledCache(folder, lines.append).keep("fp32", "key", ".o", CODE)
    return folder


def find(folder: Path, lines: list[str]) -> bytes | None:
    found = CompiledCache(folder, lines.append).find("fp32", "key", ".o")
    return found[1] if found else None


def test_cached_code_is_found_by_name_key_and_suffix(folder: Path, lines: list[str]) -> None:
    assert find(folder, lines) == CODE
    cache = CompiledCache(folder, lines.append)
    for name, key, ending in (("int8", "key", ".o"), ("fp32", "other", ".o"), ("fp32", "key", ".so")):
        assert cache.find(name, key, ending) is None
    assert lines == []


def test_folders_and_files_are_private(folder: Path) -> None:
    (file,) = folder.iterdir()
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (folder.parent, folder, file)]
    assert modes == [0o700, 0o700, 0o600]


def test_a_permissive_umask_does_not_change_the_mode(tmp_path: Path, lines: list[str]) -> None:
    before = os.umask(0)
    try:
        assert CompiledCache(tmp_path / "kernels", lines.append).keep("fp32", "key", ".o", CODE)
    finally:
        os.umask(before)
    assert find(tmp_path / "kernels", lines) == CODE


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
@pytest.mark.parametrize("what", ["folder", "file"])
def test_files_writable_by_others_are_not_used(folder: Path, lines: list[str], what: str, mode: int) -> None:
    (file,) = folder.iterdir()
    (folder if what == "folder" else file).chmod(mode)
    assert find(folder, lines) is None
    (line,) = lines
    assert "is not used" in line
    assert "others may write to it" in line


def test_files_of_another_user_are_not_used(folder: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (file,) = folder.iterdir()
    owner = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: OTHER)
    assert find(folder, lines) is None
    assert f"it belongs to user {owner}, not to {OTHER}" in lines[0]
    content, complaint = compiled_cache._read_private(file)
    assert content == b""
    assert "belongs to user" in complaint


def test_a_refused_folder_is_not_written(folder: Path, lines: list[str]) -> None:
    folder.chmod(0o777)
    cache = CompiledCache(folder, lines.append)
    assert cache.keep("int8", "key", ".o", CODE) is None
    assert len(list(folder.iterdir())) == 1
    assert len(lines) == 1


def test_a_world_writable_parent_is_refused_unless_it_is_sticky(folder: Path, lines: list[str]) -> None:
    folder.parent.parent.chmod(0o777)
    assert find(folder, lines) is None
    assert "everybody may write to it" in lines[0]
    folder.parent.parent.chmod(0o1777)
    assert find(folder, lines) == CODE


def test_a_link_in_place_of_a_file_is_not_followed(folder: Path, lines: list[str], tmp_path: Path) -> None:
    (file,) = folder.iterdir()
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    assert find(folder, lines) is None


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(CODE[:-1]), lambda path: path.write_bytes(b"")])
def test_damaged_code_is_not_found_and_is_replaced(
    folder: Path, lines: list[str], damage: Callable[[Path], None]
) -> None:
    (file,) = folder.iterdir()
    damage(file)
    assert find(folder, lines) is None
    assert CompiledCache(folder, lines.append).keep("fp32", "key", ".o", CODE) == file
    assert find(folder, lines) == CODE


def test_a_pipe_in_place_of_a_file_does_not_block(folder: Path, lines: list[str]) -> None:
    (file,) = folder.iterdir()
    file.unlink()
    os.mkfifo(file)
    assert find(folder, lines) is None


def test_a_folder_that_cannot_be_created_gives_one_line(tmp_path: Path, lines: list[str]) -> None:
    (tmp_path / "file").write_text("in the way of a folder")
    assert CompiledCache(tmp_path / "file" / "kernels", lines.append).keep("fp32", "key", ".o", CODE) is None
    (line,) = lines
    assert "the compiled code is not cached" in line


def test_a_key_depends_on_every_source_and_fact_and_its_length(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"ab")
    keys = {code_key([source], facts) for facts in (["c"], ["c", ""], ["d"])}
    keys |= {code_key([], ["ab", "c"]), code_key([], ["a", "bc"]), code_key([source, source], ["c"])}
    assert len(keys) == 5, "a source counts as a fact with its content"


def test_code_is_compiled_once_and_then_found(tmp_path: Path, lines: list[str]) -> None:
    cache = CompiledCache(tmp_path / "kernels", lines.append)
    path, content = cache.find_or_compile("fp32", "key", ".o", lambda: CODE)
    assert (path and path.read_bytes(), content) == (CODE, CODE)
    assert cache.find_or_compile("fp32", "key", ".o", lambda: pytest.fail("compiled twice")) == (path, CODE)
    assert lines == []


@pytest.mark.parametrize("changed", ["get_host_cpu_features", "get_host_cpu_name", "get_process_triple", "system"])
def test_a_key_depends_on_every_fact_of_the_cpu(changed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So both kinds of kernels have it in their key, however they call `code_key`."""
    before = code_key([], [])
    assert code_key([], []) == before
    if changed == "system":
        monkeypatch.setattr(system, "processor_features", lambda: {"amx_next"})
    else:
        other = {"get_host_cpu_features": {"amx-next": True}}.get(changed, "other")
        monkeypatch.setattr(llvm, changed, lambda: FeatureMap(other) if isinstance(other, dict) else other)
    assert code_key([], []) != before


COMPILE = """
import sys, time
from pathlib import Path
from tinyllm.machine import compiled_cache

compiled_cache.PATIENCE_SECONDS = 0.2

def compile_now():
    print("compiling", flush=True)
    time.sleep(float(sys.argv[2]))
    return b"machine code"

def announce(line):
    print(line, flush=True)

print("ready", flush=True)
sys.stdin.readline()
cache = compiled_cache.CompiledCache(Path(sys.argv[1]), announce)
print(cache.find_or_compile("fp32", "key", ".o", compile_now)[1])
"""
"""A process that compiles for argv[2] seconds when it gets a line, and prints what it announces and finds."""


class Compiling:
    """A process that is ready to run `COMPILE`."""

    def __init__(self, folder: Path, seconds: float) -> None:
        command = [sys.executable, "-c", COMPILE, str(folder), str(seconds)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.next_line() == "ready"

    def start(self) -> None:
        """Lets it find or compile the code."""
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def next_line(self) -> str:
        """The next line that it prints."""
        assert self.process.stdout
        return self.process.stdout.readline().rstrip("\n")

    def other_lines(self) -> list[str]:
        """The lines that it prints up to its end."""
        return self.process.communicate(timeout=60)[0].splitlines()


@pytest.fixture
def start_compiling(tmp_path: Path) -> Iterator[Callable[[float], Compiling]]:
    """A function that makes a process for the cache in `tmp_path`; the processes end with the test."""
    started: list[Compiling] = []

    def start(seconds: float) -> Compiling:
        started.append(Compiling(tmp_path / "kernels", seconds))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.communicate()


def test_one_of_the_processes_that_start_together_compiles(start_compiling: Callable[[float], Compiling]) -> None:
    processes = [start_compiling(1.5) for _ in range(3)]
    for process in processes:
        process.start()
    first, *others = sorted(process.other_lines() for process in processes)[::-1]
    assert first == ["compiling", repr(CODE)]
    for lines in others:
        assert len(lines) == 2
        assert "another process compiles the same code; waiting for it" in lines[0]
        assert lines[1] == repr(CODE)


def test_a_killed_process_does_not_block_the_next(start_compiling: Callable[[float], Compiling]) -> None:
    holder, next_one = start_compiling(600), start_compiling(0)
    holder.start()
    assert holder.next_line() == "compiling"
    next_one.start()
    assert "waiting for it" in next_one.next_line()
    holder.process.kill()
    assert next_one.other_lines() == ["compiling", repr(CODE)]


def test_a_process_that_compiles_forever_is_not_waited_for(
    start_compiling: Callable[[float], Compiling], tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = start_compiling(600)
    holder.start()
    assert holder.next_line() == "compiling"
    monkeypatch.setattr(compiled_cache, "LONGEST_WAIT_SECONDS", 0.2)
    path, _ = CompiledCache(tmp_path / "kernels", lines.append).find_or_compile("fp32", "key", ".o", lambda: CODE)
    assert path
    assert path.read_bytes() == CODE
    (line,) = lines
    assert line.endswith("is locked for 0 s; this process compiles too")


def test_another_key_is_not_waited_for(
    start_compiling: Callable[[float], Compiling], tmp_path: Path, lines: list[str]
) -> None:
    holder = start_compiling(600)
    holder.start()
    assert holder.next_line() == "compiling"
    assert CompiledCache(tmp_path / "kernels", lines.append).find_or_compile("fp32", "other", ".o", lambda: CODE)[0]
    assert lines == []


def test_code_without_a_lock_is_compiled_with_one_line(tmp_path: Path, lines: list[str]) -> None:
    """A folder has the name of the lock."""
    (tmp_path / "kernels" / "fp32-key.lock").mkdir(parents=True)
    cache = CompiledCache(tmp_path / "kernels", lines.append)
    path, _ = cache.find_or_compile("fp32", "key", ".o", lambda: CODE)
    assert path
    (line,) = lines
    assert line.startswith("compiled code cannot be locked, so processes that start together all compile: ")
    assert cache.find_or_compile("fp32", "key", ".o", lambda: pytest.fail("compiled twice")) == (path, CODE)


def test_a_folder_without_locks_costs_one_line(
    tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> bool:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(system, "try_lock_file", refuse)
    assert CompiledCache(tmp_path, lines.append).find_or_compile("fp32", "key", ".o", lambda: CODE) == (None, CODE)
    (line,) = lines
    assert "the compiled code is not cached, so the next start compiles again: " in line


def test_a_file_that_is_not_used_is_named_once(folder: Path, lines: list[str]) -> None:
    (file,) = folder.iterdir()
    file.chmod(0o666)
    CompiledCache(folder, lines.append).find_or_compile("fp32", "key", ".o", lambda: CODE)
    (line,) = lines
    assert f"{file} is not used: others may write to it" in line


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A shared library with one function, `answer`."""
    compiler = shutil.which("cc") or shutil.which("g++")
    if compiler is None:
        pytest.skip("there is no C compiler here")
    folder = tmp_path_factory.mktemp("library")
    (folder / "answer.c").write_text('#ifdef __cplusplus\nextern "C"\n#endif\nint answer(void) { return 42; }\n')
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "a.so", folder / "answer.c"], check=True)
    return (folder / "a.so").read_bytes()


@pytest.mark.parametrize("num_forbidden", [0, 1, 2])
def test_a_library_is_loaded_from_the_first_place_that_allows_it(
    library: bytes, tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch, num_forbidden: int
) -> None:
    """Loading fails as on a disk mounted noexec, then also from the temporary folder."""
    if num_forbidden == 2 and not hasattr(os, "memfd_create"):
        pytest.skip("only Linux loads from memory")
    load, tried = ctypes.CDLL, []

    def refuse_at_first(name: str) -> ctypes.CDLL:
        tried.append(name)
        if len(tried) <= num_forbidden:
            raise OSError(f"{name}: failed to map segment from shared object")
        return load(name)

    monkeypatch.setattr(ctypes, "CDLL", refuse_at_first)
    path = CompiledCache(tmp_path / "kernels", lines.append).keep("kernels", "key", ".so", library)
    assert load_library(path, library, lines.append).answer() == 42
    assert len(tried) == num_forbidden + 1
    assert len(lines) == num_forbidden
    assert all("does not let code run" in line for line in lines)
    assert tried[0] == str(path)


def test_a_library_that_is_not_cached_is_loaded_from_a_private_copy(library: bytes, lines: list[str]) -> None:
    assert load_library(None, library, lines.append).answer() == 42
    assert lines == []


def test_a_relative_cache_folder_is_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A relative path would depend on the working directory, so another user could supply the code."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    assert cache_folder().is_relative_to(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "there"))
    assert cache_folder() == tmp_path / "there" / "tinyllm"
