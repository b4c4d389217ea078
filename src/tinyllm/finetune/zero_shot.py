"""Classification without training: which label's name does the language model expect most after a question?

A label counts with the log-probability of all its tokens, given the sentence, the question and the tokens before.
So longer names start behind shorter ones; that is the model's own word on the whole text, and nothing evens it out.

Shapes: B sentences, L labels, S stems, N new tokens of a label, D model size, V vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from tinyllm.errors import InputError
from tinyllm.finetune.batches import pad
from tinyllm.model.transformer import Transformer
from tinyllm.tokenizer.codec import Tokenizer

QUESTION = "Is this movie {labels}? This movie is "
"""The course's suffix; `{labels}` become `awful, bad, average, good, or excellent`."""


def ask(question: str, label_names: list[str]) -> str:
    """The question with the names of the labels in it."""
    *first, last = label_names
    joined = f"{first[0]} or {last}" if len(first) == 1 else f"{', '.join(first)}, or {last}"
    return question.replace("{labels}", joined)


def continuation_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids of `text` as they are after a word and a space; a space at its end belongs to what comes next.

    Raises InputError for a tokenizer that joins words across spaces, whose ids would depend on the word.
    """
    before = tokenizer.encode("movie")
    whole = tokenizer.encode(f"movie {text.strip()}")
    if whole[: len(before)] != before or len(whole) == len(before):
        raise InputError(f"{tokenizer.name} joins words across spaces; zero-shot scores need one that does not")
    return whole[len(before) :]


class ZeroShot:
    """A language model, a question, and labels that could follow it."""

    def __init__(self, model: Transformer, tokenizer: Tokenizer, label_names: list[str], question: str) -> None:
        """Raises InputError where question and labels alone leave no room for a sentence in the context."""
        self.model = model.eval()
        self.question = continuation_ids(tokenizer, ask(question, label_names))
        self.labels = [continuation_ids(tokenizer, name) for name in label_names]
        prefixes = {tuple(label[:-1]) for label in self.labels}
        self.stems = sorted(p for p in prefixes if not any(p != q and q[: len(p)] == p for q in prefixes))
        """What stands after the question in some row: a causal model that reads `▁aw` has read the row without it."""
        self.row_limit = model.config.context_length - len(self.question) - max(map(len, self.stems))
        """Tokens of a sentence, BOS included, that fit before the question and a label."""
        if self.row_limit < 2:
            raise InputError(
                f"question and labels have {len(self.question)} + {max(map(len, self.stems))} tokens, and the model's "
                f"context is {model.config.context_length}; no sentence fits before them"
            )

    @torch.inference_mode()
    def score_rows(self, rows: list[list[int]]) -> Tensor:
        """Log-probability (B, L) of each label after each sentence (token ids with BOS), in nats."""
        tokens, _ = pad([row + self.question + list(stem) for row in rows for stem in self.stems], self._device)
        hidden = self.model.hidden_states(tokens)
        hidden = hidden.view(len(rows), len(self.stems), *hidden.shape[1:])
        # The position of the question's last token, which expects a label's first one.
        ends = torch.tensor([len(row) + len(self.question) - 1 for row in rows], device=self._device)
        return torch.stack([self._score_label(label, hidden, ends) for label in self.labels], dim=1)

    def _score_label(self, label: list[int], hidden: Tensor, ends: Tensor) -> Tensor:
        """(B,) from the hidden states (B, S, T, D) of every row with every stem."""
        stem = next(place for place, ids in enumerate(self.stems) if list(ids[: len(label) - 1]) == label[:-1])
        targets = torch.tensor(label, device=self._device)
        sentences = torch.arange(len(ends), device=self._device)[:, None]
        positions = ends[:, None] + torch.arange(len(label), device=self._device)
        expected = self.model.project(hidden[sentences, stem, positions]).float()  # (B, N, V)
        log_probabilities = F.log_softmax(expected, dim=-1)
        return log_probabilities.gather(2, targets.expand(len(ends), -1)[..., None]).sum(dim=(1, 2))

    @property
    def _device(self) -> torch.device:
        return self.model.output_weight.device
