"""Writers that die in the middle of their work, for tests of their remains."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from tinyllm import storage


def leave_draft(target: Path, kind: str = "checkpoint", files: Mapping[str, bytes] = MappingProxyType({})) -> Path:
    """The draft folder of a process that died while it wrote `target`."""
    if not hasattr(os, "fork"):
        pytest.skip("a writer dies in a fork, which Windows has not")
    child = os.fork()
    if child == 0:
        with storage.open_draft(target, kind) as draft:
            draft.new.mkdir()
            for name, content in files.items():
                (draft.new / name).write_bytes(content)
            os._exit(0)
    os.waitpid(child, 0)
    (draft,) = storage.drafts_of(target)
    return draft.folder
