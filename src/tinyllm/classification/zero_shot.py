"""Classification without training, by the probability of each label's name after the sentence and a question.

    score(label) = sum over its tokens of log p(token | sentence, question, earlier tokens of the label)

Longer names have lower scores; they are not normalized by length.

Shapes: B sentences, L labels, S stems, N tokens of a label, D model size, V vocabulary. A stem is a label without its
last token; stems that begin a longer one are left out.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from tinyllm.classification.batches import pad
from tinyllm.errors import InputError
from tinyllm.model.transformer import Transformer
from tinyllm.tokenizer.codec import Tokenizer

QUESTION = "Is this movie {labels}? This movie is "
"""The course's suffix; `{labels}` becomes `awful, bad, average, good, or excellent`."""


def ask(question: str, label_names: list[str]) -> str:
    """`question` with the names of the labels in place of `{labels}`."""
    *first, last = label_names
    joined = f"{first[0]} or {last}" if len(first) == 1 else f"{', '.join(first)}, or {last}"
    return question.replace("{labels}", joined)


def continuation_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids of `text` after another word and a space, without the space at the end of `text`.

    Raises InputError for a tokenizer that joins words across spaces: the ids would depend on the word before.
    """
    before = tokenizer.encode("movie")
    whole = tokenizer.encode(f"movie {text.strip()}")
    if whole[: len(before)] != before or len(whole) == len(before):
        raise InputError(f"{tokenizer.name} joins words across spaces; zero-shot scores need one that does not")
    return whole[len(before) :]


class ZeroShot:
    """A language model, a question, and labels that could follow it."""

    def __init__(self, model: Transformer, tokenizer: Tokenizer, label_names: list[str], question: str) -> None:
        """Raises InputError if question and labels leave no room for a sentence in the context."""
        self.model = model.eval()
        self.question = continuation_ids(tokenizer, ask(question, label_names))
        self.labels = [continuation_ids(tokenizer, name) for name in label_names]
        prefixes = {tuple(label[:-1]) for label in self.labels}
        self.stems = sorted(p for p in prefixes if not any(p != q and q[: len(p)] == p for q in prefixes))
        """Tokens that follow the question in the rows to compute. Their prefixes need no row: the model is causal."""
        self.row_limit = model.config.context_length - len(self.question) - max(map(len, self.stems))
        """Largest number of tokens of a sentence, BOS included, before the question and a label."""
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
        # Position of the question's last token: its logits predict the first token of a label.
        ends = torch.tensor([len(row) + len(self.question) - 1 for row in rows], device=self._device)
        return torch.stack([self._score_label(label, hidden, ends) for label in self.labels], dim=1)

    def _score_label(self, label: list[int], hidden: Tensor, ends: Tensor) -> Tensor:
        """Log-probabilities (B,) of `label` from the hidden states (B, S, T, D) of each sentence with each stem."""
        stem = next(index for index, ids in enumerate(self.stems) if list(ids[: len(label) - 1]) == label[:-1])
        targets = torch.tensor(label, device=self._device)
        sentences = torch.arange(len(ends), device=self._device)[:, None]
        positions = ends[:, None] + torch.arange(len(label), device=self._device)
        logits = self.model.project(hidden[sentences, stem, positions]).float()  # (B, N, V)
        log_probabilities = F.log_softmax(logits, dim=-1)
        return log_probabilities.gather(2, targets.expand(len(ends), -1)[..., None]).sum(dim=(1, 2))

    @property
    def _device(self) -> torch.device:
        return self.model.output_weight.device
