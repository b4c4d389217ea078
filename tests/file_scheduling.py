"""Shares the tests among parallel processes: by files, with the whole of tests/browser in one process."""

from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling


class FileScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Gives each process whole files, in the order of their names.

    Fixtures of a module, such as a server, are made once, and there is one browser with one studio. Files with the most
    tests are not first, as pytest-xdist would have them. The long files of browser, contract, end_to_end and faults
    have few tests, and one of them would run alone at the end. The quick files of unit come last.
    """

    def __init__(self, config: pytest.Config, log: Any = None) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return "browser" if "browser" in Path(path).parts else path
