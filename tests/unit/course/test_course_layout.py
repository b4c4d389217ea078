"""Tests the choice among several sizes of vocabulary."""

from pathlib import Path

import pytest

from tinyllm.course.layout import choose_shards, choose_tokenizer
from tinyllm.errors import InputError, UsageError


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def test_the_choice_is_the_named_size_then_4096_then_the_only_one(data: Path) -> None:
    (data / "tok1000.model").touch()
    (data / "tokens.model").touch()  # no size in its name
    assert (choose_tokenizer(None), choose_tokenizer(1000)) == (1000, 1000)
    (data / "tok512.model").touch()
    with pytest.raises(UsageError, match=r"a tokenizer of several sizes \(512, 1000\); choose one by --vocab_size"):
        choose_tokenizer(None)
    (data / "tok4096.model").touch()
    assert (choose_tokenizer(None), choose_tokenizer(512)) == (4096, 512)


def test_shards_are_chosen_by_the_same_rule(data: Path) -> None:
    (data / "tok1000.model").touch()
    with pytest.raises(InputError, match=r"no encoded corpus in data; run python preprocess\.py first"):
        choose_shards(None)
    (data / "tok1000").mkdir()
    assert choose_shards(None) == 1000
    with pytest.raises(InputError) as caught:
        choose_shards(4096)
    assert str(caught.value) == (
        "there is no encoded corpus of 4096 tokens in data; run python preprocess.py --vocab_size 4096 first, "
        "or use the one of 1000: python train.py --vocab_size 1000"
    )
