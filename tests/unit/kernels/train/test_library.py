"""The compiled kernels are compiled or found in the cache; a failure gives its reason."""

import subprocess
import sys
from pathlib import Path

import pytest

from tinyllm.kernels.train import library

pytestmark = pytest.mark.skipif(not library.is_supported(), reason="needs an x86 processor with AMX and a C++ compiler")


LOAD = """
import sys
from pathlib import Path
from tinyllm.kernels.train import library
print(repr(library.load(Path(sys.argv[1]), lambda line: print(line))))
"""


def load_elsewhere(folder: Path, **environment: str) -> list[str]:
    """The lines that a new process announces, and its result."""
    run = subprocess.run(
        [sys.executable, "-c", LOAD, folder], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    return run.stdout.splitlines()


def test_it_is_compiled_once_and_again_when_the_file_was_damaged(tmp_path: Path) -> None:
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
    assert load_elsewhere(tmp_path, **environment) == [
        "compiling kernels for this CPU, once: about five seconds",
        "''",
    ]
    assert load_elsewhere(tmp_path, **environment) == ["''"]
    (kept,) = tmp_path.glob("kernels-*.so")
    content = bytearray(kept.read_bytes())
    content[len(content) // 2] ^= 1
    kept.write_bytes(content)
    assert "compiling" in load_elsewhere(tmp_path, **environment)[0]


def test_a_failure_gives_its_reason(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho In function f: >&2\necho error: out of registers >&2\nexit 1\n")
    broken.chmod(0o755)
    *_, answer = load_elsewhere(tmp_path / "cache", PATH="/usr/bin:/bin", CXX=str(broken))
    assert answer == "'the kernels cannot be made ready: the C++ compiler failed: error: out of registers'"
    broken.write_text("no program")
    *_, answer = load_elsewhere(tmp_path / "cache", PATH="/usr/bin:/bin", CXX=str(broken))
    assert "Exec format error" in answer
    assert load_elsewhere(tmp_path / "cache", PATH="")[-1].startswith("'the kernels need Linux")
    (tmp_path / "file").write_text("no folder")
    told = load_elsewhere(tmp_path / "file", PATH="/usr/bin:/bin")
    assert any("the compiled code is not cached" in line for line in told)
    assert told[-1] == "''", "it works all the same"
