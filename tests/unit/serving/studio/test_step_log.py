"""Logs that are torn, foreign or large."""

import json
import random
from pathlib import Path

import pytest

from studio_folder import update, write_lines
from tinyllm.serving.studio.step_log import LONGEST_LINE_BYTES, StepLog, parse

FOREIGN = [
    b"",
    b"null",
    b"[1]",
    b'"step"',
    b"{}",
    b'{"step": "1"}',
    b'{"step": -1}',
    b'{"step": true}',
    b'{"step": 1.0}',
    b'{"step": 1e400}',
    b'{"step": 9007199254740992}',
    b'{"step": 1',
    b"\xff\xfe\x00",
    b"[" * 100_000,
    b'{"step": 1, "a": "' + b"x" * LONGEST_LINE_BYTES + b'"}',
]


@pytest.mark.parametrize("line", FOREIGN, ids=lambda line: repr(line[:20]))
def test_a_foreign_line_is_left_out_and_its_neighbours_are_read(line: bytes, tmp_path: Path) -> None:
    assert parse(line) is None
    path = tmp_path / "log"
    path.write_bytes(b'{"step": 1}\n' + line + b'\n{"step": 2}\n')
    with StepLog.open(path) as log:
        assert log is not None
        assert [record["step"] for _, record in log.lines()] == [1, 2]
        assert log.find(2) == len(line) + 13


def test_a_last_line_without_its_end_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b'{"step": 1}\n{"step": 2}')
    with StepLog.open(path) as log:
        assert log is not None
        assert log.end == 12
        assert [record["step"] for _, record in log.lines()] == [1]


def test_a_line_longer_than_a_block_is_skipped_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b'{"step": 1}\n' + b"x" * 3_000_000 + b'\n{"step": 2}\n')
    with StepLog.open(path) as log:
        assert log is not None
        found = list(log.lines())
    assert [(offset, record["step"]) for offset, record in found] == [(0, 1), (3_000_013, 2)]


def test_a_link_or_a_folder_is_no_log(tmp_path: Path) -> None:
    (tmp_path / "real").write_text('{"step": 1}\n')
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for name in ("missing", "link", "."):
        with StepLog.open(tmp_path / name) as log:
            assert log is None


def test_the_binary_search_finds_every_step(tmp_path: Path) -> None:
    path = tmp_path / "log"
    chance = random.Random(3)
    steps = sorted(chance.choices(range(20_000), k=3_000))
    lines = [update(step, note="x" * chance.randrange(300)) for step in steps]
    write_lines(path, lines)
    offsets: dict[int, int] = {}
    offset = 0
    for line in lines:
        offsets.setdefault(line["step"], offset)
        offset += len(json.dumps(line)) + 1
    with StepLog.open(path) as log:
        assert log is not None
        for step in chance.choices(range(20_100), k=500):
            following = next((each for each in offsets if each >= step), None)
            assert log.find(step) == (log.end if following is None else offsets[following])


def test_a_place_is_lost_when_the_file_is_rewritten(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write_lines(path, [update(step) for step in range(1, 20)])
    with StepLog.open(path) as log:
        assert log is not None
        place = log.place(log.end)
        assert log.has(place)
    write_lines(path, [update(20)], "a")
    with StepLog.open(path) as log:
        assert log is not None
        assert log.has(place)
    write_lines(path, [update(step, 9.0) for step in range(1, 30)])
    with StepLog.open(path) as log:
        assert log is not None
        assert not log.has(place)
