"""Shares the tests among parallel processes: by files, with the whole of tests/browser in one process."""

from pathlib import Path

from xdist.scheduler.loadscope import LoadScopeScheduling


class FileScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Gives each process whole files, the largest first.

    Fixtures of a module, such as a server, are made once, and there is one browser with one studio.
    """

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return "browser" if "browser" in Path(path).parts else path
