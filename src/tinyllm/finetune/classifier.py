"""A decoder with a linear head on the last real token's state: Hugging Face's `LlamaForSequenceClassification`.

Parameters carry its names, so that a saved classifier loads there as it is. The head has no bias there, so none here.

Shapes: B sentences, T tokens of the longest, D model size, L labels.
"""

from typing import Self

import torch
from torch import Tensor, nn

from tinyllm.config import ModelConfig
from tinyllm.finetune.batches import pad
from tinyllm.model.init import STANDARD_DEVIATION
from tinyllm.model.transformer import Decoder, Transformer


class Classifier(nn.Module):
    """Gives each sentence a logit for each label."""

    def __init__(self, config: ModelConfig, label_names: list[str], dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.label_names = label_names
        self.model = Decoder(config)
        self.dropout = nn.Dropout(dropout)
        self.score = nn.Linear(config.hidden_size, len(label_names), bias=False)

    @classmethod
    def from_language_model(cls, language_model: Transformer, label_names: list[str], seed: int) -> Self:
        """The body of `language_model`, shared with it, and a fresh head drawn by `seed`, the same on any device."""
        with torch.device("meta"):
            classifier = cls(language_model.config, label_names)
        shape, draws = classifier.score.weight.shape, torch.Generator().manual_seed(seed)
        head = torch.empty(shape).normal_(std=STANDARD_DEVIATION, generator=draws)
        classifier.model = language_model.model
        classifier.score.weight = nn.Parameter(head.to(language_model.output_weight))
        return classifier

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.score.weight.device

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Logits (B, L) of sentences `tokens` (B, T), padded on the right, of which `lengths` (B,) are real."""
        hidden = self.model(tokens)
        last = hidden[torch.arange(len(tokens), device=tokens.device), lengths - 1]
        logits: Tensor = self.score(self.dropout(last))
        return logits

    @torch.no_grad()
    def score_rows(self, rows: list[list[int]]) -> Tensor:
        """Logits (B, L) of token ids of any lengths, without gradients: what `batches.predict` wants."""
        logits: Tensor = self(*pad(rows, self.device))
        return logits
