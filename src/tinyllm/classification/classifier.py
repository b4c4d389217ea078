"""A decoder with a linear head on the hidden state of the last token: Hugging Face's `LlamaForSequenceClassification`.

Parameters have the same names, so transformers loads a saved classifier unchanged. The head has no bias there either.

Shapes: B sentences, T tokens of the longest, D model size, L labels.
"""

from typing import Self

import torch
from torch import Tensor, nn

from tinyllm.classification.batches import pad
from tinyllm.config import ModelConfig
from tinyllm.model.init import STANDARD_DEVIATION
from tinyllm.model.transformer import Decoder, Transformer


class Classifier(nn.Module):
    """Computes one logit per label for each sentence."""

    def __init__(self, config: ModelConfig, label_names: list[str], dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.label_names = label_names
        self.model = Decoder(config)
        self.dropout = nn.Dropout(dropout)
        self.score = nn.Linear(config.hidden_size, len(label_names), bias=False)

    @classmethod
    def from_language_model(cls, language_model: Transformer, label_names: list[str], seed: int) -> Self:
        """A classifier that shares the decoder of `language_model`, with a head from `seed`, equal on every device."""
        with torch.device("meta"):
            classifier = cls(language_model.config, label_names)
        shape, draws = classifier.score.weight.shape, torch.Generator().manual_seed(seed)
        head = torch.empty(shape).normal_(std=STANDARD_DEVIATION, generator=draws)
        classifier.model = language_model.model
        classifier.score.weight = nn.Parameter(head.to(language_model.output_weight))
        return classifier

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.score.weight.device

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Logits (B, L) of sentences `tokens` (B, T), padded on the right; `lengths` (B,) exclude padding."""
        hidden = self.model(tokens)
        last = hidden[torch.arange(len(tokens), device=tokens.device), lengths - 1]
        logits: Tensor = self.score(self.dropout(last))
        return logits

    @torch.no_grad()
    def score_rows(self, rows: list[list[int]]) -> Tensor:
        """Logits (B, L) of rows of token ids of any lengths, without gradients; a scorer for `batches.predict`."""
        logits: Tensor = self(*pad(rows, self.device))
        return logits
