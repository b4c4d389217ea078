"""Tests training: equal bytes for equal input, SentencePiece's own files, and errors that name the remedy."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from sentencepiece import SentencePieceTrainer

from tinyllm import storage
from tinyllm.errors import ArtifactError, InputError, UsageError
from tinyllm.tokenizer.codec import Tokenizer
from tinyllm.tokenizer.training import (
    MAX_LINE_BYTES,
    sample_lines,
    split_at_rare_characters,
    train_model,
    train_tokenizer,
)


def test_equal_input_gives_equal_bytes(tmp_path: Path, lines: list[str]) -> None:
    first = train_tokenizer(["\n".join(lines)], 350, tmp_path / "first")
    second = train_tokenizer(iter(lines), 350, tmp_path / "second")
    assert first.fingerprint == second.fingerprint
    for name in ("tokenizer.model", "tokenizer.vocab", "tokenizer.json"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    assert str(tmp_path).encode() not in first.model_proto
    details = storage.verify(tmp_path / "first", "tokenizer").details
    assert details["vocab_size"] == 350
    assert details["fingerprint"] == Tokenizer.load(tmp_path / "first").fingerprint
    assert (details["num_documents"], details["num_lines"]) == (1, 200)


def test_vocab_file_equals_sentencepieces(tmp_path: Path, lines: list[str]) -> None:
    train_tokenizer(lines, 350, tmp_path / "ours")
    text = tmp_path / "lines.txt"
    text.write_text("\n".join(lines), encoding="utf-8")
    SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(tmp_path / "theirs"),
        model_type="bpe",
        vocab_size=350,
        character_coverage=1.0,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    assert (tmp_path / "ours" / "tokenizer.vocab").read_bytes() == (tmp_path / "theirs.vocab").read_bytes()


def test_digits_stay_single_and_newlines_are_bytes() -> None:
    tokenizer = Tokenizer.from_bytes(train_model(["2024 2024 2024 words"] * 20, 275), "x")
    assert [tokenizer.id_to_piece(id) for id in tokenizer.encode("2024")] == ["▁", "2", "0", "2", "4"]
    assert tokenizer.id_to_piece(tokenizer.encode("a\n")[-1]) == "<0x0A>"


def test_small_corpus_is_used_completely_and_in_order(lines: list[str]) -> None:
    sample = sample_lines(["a\n\nb", "c \n  "], 1000, seed=0)
    assert sample.lines == ["a", "b", "c "]
    assert (sample.num_documents, sample.num_lines, sample.num_bytes) == (2, 3, 4)


def test_large_corpus_is_sampled_within_the_limit(lines: list[str]) -> None:
    sample = sample_lines(lines, 3000, seed=1)
    assert sample.num_bytes == sum(len(line.encode()) for line in sample.lines) <= 3000
    assert sample.num_bytes > 2500
    assert sample.lines == sample_lines(["\n".join(lines)], 3000, seed=1).lines
    assert sample.lines != sample_lines(lines, 3000, seed=2).lines
    # The sample is spread over the corpus, in the corpus's order.
    positions = [lines.index(line) for line in sample.lines]
    assert positions == sorted(positions)
    assert positions[0] < 50 < 150 < positions[-1]


def test_long_lines_are_cut_and_not_dropped() -> None:
    lines = sample_lines(["é" * MAX_LINE_BYTES], 10 * MAX_LINE_BYTES, seed=0).lines
    assert "".join(lines) == "é" * MAX_LINE_BYTES
    assert max(len(line.encode()) for line in lines) <= MAX_LINE_BYTES


def test_line_with_the_reserved_character_is_kept() -> None:
    """SentencePiece would drop the whole line."""
    tokenizer = Tokenizer.from_bytes(train_model(sample_lines(["zebra ▅ zebra"] * 9, 10**6, 0).lines, 268), "x")
    assert "z" in {piece.text for piece in tokenizer.pieces}
    assert tokenizer.decode(tokenizer.encode("▅")) == "▅"


def test_too_large_a_vocabulary_names_the_largest_possible(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="too small for a vocabulary of 5000: the largest it allows is") as error:
        train_tokenizer(["a few words in a small text"], 5000, tmp_path / "tok")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "tok").exists()
    largest = int(re.search(r"allows is (\d+)", str(error.value))[1])  # type: ignore[index]
    assert train_tokenizer(["a few words in a small text"], largest, tmp_path / "tok").vocab_size == largest


def test_too_many_characters_name_the_smallest_vocabulary() -> None:
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 500)))
    with pytest.raises(InputError, match=r"too many different characters for a vocabulary of 300: .* are 760 ids"):
        train_model([text], 300)


@pytest.mark.parametrize("texts", [[], ["", "\n \n"]])
def test_corpus_without_text_is_refused(tmp_path: Path, texts: list[str]) -> None:
    with pytest.raises(InputError, match="no text to train a tokenizer on"):
        train_tokenizer(texts, 300, tmp_path / "tok")


def test_lone_surrogate_is_named() -> None:
    with pytest.raises(InputError, match=r"document 2 has the lone surrogate U\+DFFF at character 1"):
        sample_lines(["fine", "x\udfff"], 100, 0)


@pytest.mark.parametrize("vocab_size", [-1, 259, 2**20 + 1])
def test_impossible_vocabulary_sizes_are_refused(tmp_path: Path, vocab_size: int) -> None:
    with pytest.raises(UsageError, match=f"^vocab_size is {vocab_size}; it can be 260 to 1048576"):
        train_tokenizer(["text"], vocab_size, tmp_path / "tok")


def test_output_is_replaced_only_on_request(tmp_path: Path, lines: list[str]) -> None:
    first = train_tokenizer(lines, 350, tmp_path / "tok")
    with pytest.raises(ArtifactError, match="exists already"):
        train_tokenizer(lines, 360, tmp_path / "tok")
    assert Tokenizer.load(tmp_path / "tok").fingerprint == first.fingerprint
    assert train_tokenizer(lines, 360, tmp_path / "tok", overwrite=True).vocab_size == 360


def test_a_folder_with_other_files_is_never_replaced(tmp_path: Path, lines: list[str]) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ArtifactError, match="will not replace"):
        train_tokenizer(lines, 350, tmp_path, overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_unwritable_output_is_refused_before_the_corpus_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    def never_read() -> Iterator[str]:
        raise AssertionError("the corpus was read although the output cannot be written")
        yield

    with pytest.raises(ArtifactError, match=r"file.* not a directory"):
        train_tokenizer(never_read(), 300, tmp_path / "file" / "tok")


def notes_of(lines: list[str], vocab_size: int, output: Path) -> list[str]:
    """The lines for the user while a tokenizer is trained."""
    notes: list[str] = []
    train_tokenizer(lines, vocab_size, output, note=notes.append)
    return notes


def test_vocabulary_that_is_large_for_its_text_is_reported_with_a_fitting_size(
    tmp_path: Path, lines: list[str]
) -> None:
    (warning,) = notes_of(lines, 490, tmp_path / "large")
    tokenizer = Tokenizer.load(tmp_path / "large")
    num_tokens = sum(len(tokenizer.encode(line, bos=False)) for line in lines)
    assert num_tokens < 20 * 490
    assert warning.startswith(f"490 tokens are many for this text: it has {num_tokens:,} tokens")
    fitting = int(warning.rsplit("about ", 1)[1].split()[0])
    assert 259 < fitting < 490


def test_vocabulary_that_fits_its_text_is_not_reported(tmp_path: Path, lines: list[str]) -> None:
    assert notes_of(lines * 10, 300, tmp_path / "fitting") == []


def test_text_without_a_smaller_vocabulary_advises_more_text(tmp_path: Path) -> None:
    (warning,) = notes_of(["a"], 261, tmp_path / "tiny")
    assert warning.endswith("too seldom for a model to learn; give more text")


def test_rare_characters_split_lines_below_the_coverage_that_sentencepiece_allows() -> None:
    assert split_at_rare_characters(["aaabacd", "b"], 0.7) == ["aaaba", "b"]
    tokenizer = Tokenizer.from_bytes(train_model(["甲甲乙甲乙丙丁", "甲乙乙甲戊"] * 9, 264, 0.75), "x")
    texts = {piece.text for piece in tokenizer.pieces}
    assert {"甲", "乙"} <= texts
    assert not {"丙", "丁", "戊"} & set("".join(texts))
    assert tokenizer.decode(tokenizer.encode("甲丙乙丁")) == "甲丙乙丁"
