"""The logs of a run directory."""

import os
import sys
from pathlib import Path

import pytest

from tinyllm.training.metrics import MetricsLog


@pytest.mark.skipif(sys.platform == "win32", reason="names of POSIX are bytes")
def test_a_run_may_have_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    run = tmp_path / os.fsdecode(b"run\xff")
    run.mkdir()
    log = MetricsLog(run, step=0)
    log.write({"step": 1, "loss": 2.0})
    log.draw()
    log.close()
    assert "run\\udcff" in (run / "loss.svg").read_text(encoding="utf-8")
