"""Small committed directories, and the content of a directory for comparisons."""

from pathlib import Path

from tinyllm import storage


def commit(path: Path, text: str = "hello", kind: str = "test") -> None:
    """Commits a directory with the file `a.txt`; the manifest has the length of `text`."""
    with storage.commit_directory(path, kind) as draft:
        draft.write("a.txt", text)
        draft.details["length"] = len(text)


def contents(directory: Path) -> dict[str, bytes]:
    """Name -> content of every file, except the times of verification, which depend on the disk."""
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir()) if path.name != storage.STAMPS_NAME}
