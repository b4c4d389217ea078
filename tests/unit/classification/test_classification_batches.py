"""Batches: cutting, padding, and the order of predictions."""

import pytest
import torch

from recorder import Recorder
from tinyllm.classification.batches import encode_sentences, pad, predict
from tinyllm.progress import Progress
from tinyllm.tokenizer.codec import Tokenizer


def test_sentences_are_cut_at_their_end(tiny_tokenizer: Tokenizer) -> None:
    texts = ["Once upon a time the fox saw a ball.", "the fox"]
    whole = [tiny_tokenizer.encode(text, bos=True) for text in texts]
    limit = len(whole[1])
    encoded = encode_sentences(texts, tiny_tokenizer, limit)
    assert encoded.rows == [whole[0][:limit], whole[1]]
    assert encoded.num_cut == 1


def test_padding_is_on_the_right() -> None:
    tokens, lengths = pad([[5], [6, 7, 8]])
    assert tokens.tolist() == [[5, 0, 0], [6, 7, 8]]
    assert lengths.tolist() == [1, 3]


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_predictions_come_in_the_order_of_the_rows(batch_size: int) -> None:
    rows = [[value] * (1 + 7 * value % 5) for value in (3, 0, 4, 1, 2, 0, 3)]
    seen = []

    def scorer(batch: list[list[int]]) -> torch.Tensor:
        seen.append(len(batch))
        return torch.eye(5)[[row[0] for row in batch]]

    recorder = Recorder()
    found = predict(scorer, rows, batch_size, recorder, "dev")
    assert found == [row[0] for row in rows]
    assert (sum(seen), max(seen)) == (7, min(7, batch_size))
    num_batches = -(-len(rows) // batch_size)
    assert recorder.progress == [Progress("dev", done, num_batches, "batches") for done in range(num_batches + 1)]
