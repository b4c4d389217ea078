"""Documents, search and statistics of shards, compared with the texts that the shards were made from."""

import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tinyllm.errors import ArtifactError, TinyllmError
from tinyllm.serving.studio.search import search
from tinyllm.serving.studio.shard_view import ShardView, open_shards
from tinyllm.serving.studio.statistics import statistics
from tinyllm.shards.format import ShardSet, find_document_starts
from tinyllm.shards.writer import prepare
from tinyllm.tokenizer.codec import Tokenizer


def documents_of(shards: Path, split: str) -> list[list[int]]:
    """The ids of every document, as the reader of training gives them."""
    found = ShardSet.open(shards)
    documents = []
    for array in getattr(found, split):
        starts = find_document_starts(array, found.tokenizer.bos_id)
        documents += [part.tolist() for part in np.split(np.array(array), starts[1:])]
    return documents


@pytest.fixture(scope="module")
def many_shards(tiny_tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents of many lengths in several shards, some of them equal."""
    folder = tmp_path_factory.mktemp("many")
    lines = [f"the fox number {i % 700} saw a ball" + " and a bear" * (i % 13) for i in range(1_000)]
    lines += ["Tausend Bären und 你好 🦊."] * 5 + ["a fox " * 2_000]
    (folder / "lines.txt").write_text("\n".join(lines), encoding="utf-8")
    prepare([folder / "lines.txt"], tiny_tokenizer, folder / "shards", documents="line", shard_tokens=8_000)
    return folder / "shards"


@pytest.mark.parametrize("split", ["train", "validation"])
def test_every_document_is_read_as_it_was_written(split: str, many_shards: Path) -> None:
    expected = documents_of(many_shards, split)
    view = open_shards(many_shards).splits[split]  # type: ignore[index]
    assert view.num_documents == len(expected)
    assert view.num_tokens == sum(map(len, expected))
    assert split == "validation" or len(view.files) > 3
    found = [(number, length, ids.tolist()) for number, length, ids in view.documents(0, 10**9, 10**9)]
    assert found == [(number, len(ids), ids) for number, ids in enumerate(expected)]
    for start in (0, 1, len(expected) // 2, len(expected) - 1):
        part = [(number, ids.tolist()) for number, _, ids in view.documents(start, start + 3, 5)]
        assert part == [(number, expected[number][:5]) for number in range(start, min(start + 3, len(expected)))]
    assert list(view.documents(len(expected), len(expected) + 5, 5)) == []


def test_search_finds_the_documents_that_contain_a_text(many_shards: Path) -> None:
    view = open_shards(many_shards)
    split = view.splits["train"]
    texts = [view.tokenizer.decode(ids) for ids in documents_of(many_shards, "train")]
    for text in ("number 33", "BEAR AND", "你好", "ä", "a fox a FOX", "nothing like this", "<s>", "("):
        expected = [number for number, each in enumerate(texts) if text.lower() in each.lower()]
        found: list[int] = []
        start: int | None = 0
        while start is not None:
            answer = search(view, split, text, start)
            assert len(answer["matches"]) <= 20
            found += [match["index"] for match in answer["matches"]]
            for match in answer["matches"]:
                assert match["before"] + match["match"] + match["after"] in texts[match["index"]]
                assert match["match"].lower() == text.lower()
            start = answer["next"]
        assert found == expected


def test_a_search_that_runs_out_of_time_says_where_to_go_on(many_shards: Path) -> None:
    view = open_shards(many_shards)
    assert search(view, view.splits["train"], "x", 17, seconds=-1) == {"matches": [], "next": 17}
    assert search(view, view.splits["train"], "x", 10**9) == {"matches": [], "next": None}


def test_statistics_are_those_of_the_documents(many_shards: Path) -> None:
    view = open_shards(many_shards)
    documents = documents_of(many_shards, "train")
    found = statistics(view, view.splits["train"], seconds=60)
    assert found["sampled"] is False
    edges, counts = found["lengths"]["edges"], found["lengths"]["counts"]
    assert len(edges) == len(counts) + 1
    lengths = [len(ids) for ids in documents]
    assert sum(counts) == len(lengths)
    assert (edges[0], edges[-1]) == (min(lengths), max(lengths) + 1)
    assert counts[0] == sum(edges[0] <= length < edges[1] for length in lengths)
    uses = Counter(id for ids in documents for id in ids)
    assert found["unused"] == 320 - len(uses)
    ranked = [count for _, count in uses.most_common()]
    assert found["frequencies"]["count"] == [ranked[rank - 1] for rank in found["frequencies"]["rank"]]
    groups = Counter(map(tuple, documents))
    assert found["duplicates"]["documents"] == len(documents) - len(groups)
    largest = found["duplicates"]["groups"]
    assert [group["count"] for group in largest] == [count for _, count in groups.most_common(10) if count > 1]
    assert largest[0]["text"].startswith(("Tausend", "the fox"))
    for group in largest:
        assert len({tuple(documents[index]) for index in group["indexes"]}) == 1


def test_statistics_without_time_say_that_they_are_a_sample(many_shards: Path) -> None:
    view = open_shards(many_shards)
    found = statistics(view, view.splits["train"], seconds=-1)
    assert found["sampled"] is True
    assert found["lengths"] == {"edges": [], "counts": []}


def test_shards_of_other_content_are_opened_again(tmp_path: Path, tiny_shards: Path, many_shards: Path) -> None:
    folder = tmp_path / "shards"
    shutil.copytree(tiny_shards, folder)
    first = open_shards(folder)
    assert open_shards(folder) is first
    shutil.rmtree(folder)
    shutil.copytree(many_shards, folder)
    assert open_shards(folder).splits["train"].num_documents > 500


def test_damaged_shards_are_an_error_or_shown_as_damaged(tmp_path: Path, tiny_shards: Path) -> None:
    folder = tmp_path / "shards"
    shutil.copytree(tiny_shards, folder)
    view = ShardView(folder)
    ids = next(folder.glob("train*.bin"))
    content = bytearray(ids.read_bytes())
    content[2:4] = b"\xff\xff"
    ids.write_bytes(content)
    _, _, found = next(view.splits["train"].documents(0, 1, 5))
    assert view.token_fields(found)[1] == {"id": 65_535, "piece": "\ufffd"}
    search(view, view.splits["train"], "fox", 0)
    statistics(view, view.splits["train"])
    os.truncate(ids, 20)  # while it is open: what is missing is missing
    assert sum(len(each) for _, _, each in view.splits["train"].documents(0, 100, 5)) == 5
    statistics(view, view.splits["train"])
    with pytest.raises(TinyllmError, match="damaged"):
        ShardView(folder)
    ends = next(folder.glob("train*.idx"))
    ends.write_bytes(b"\xff" * len(ends.read_bytes()))
    with pytest.raises(ArtifactError, match="is damaged"):
        list(view.splits["train"].documents(0, 100, 5))
