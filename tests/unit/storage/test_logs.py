"""A log survives a crash in the middle of a line."""

from pathlib import Path

from tinyllm import storage


def test_a_log_drops_a_cut_line_and_later_steps(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    log = storage.JsonLines(path, keep_through_step=2)
    log.append({"step": 3, "again": True})
    log.close()
    assert storage.read_json_lines(path) == [{"step": 1}, {"step": 2}, {"step": 3, "again": True}]


def test_opening_a_log_again_keeps_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = storage.JsonLines(path)
    log.append({"step": 1, "text": "Füchse 你好"})
    log.close()
    written = path.read_bytes()
    assert "Füchse 你好".encode() in written
    storage.JsonLines(path, keep_through_step=5).close()
    assert path.read_bytes() == written
