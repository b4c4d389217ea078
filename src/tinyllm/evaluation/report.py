"""Shows the results of several models side by side: as a table for 80 columns, as Markdown, and as JSON."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import isfinite
from typing import Any

from tinyllm.evaluation.comparison import ModelFigures, model_name
from tinyllm.evaluation.copied import SHORTEST_TOKENS
from tinyllm.evaluation.samples import REPEATED_WORDS, SampleMeasures
from tinyllm.evaluation.scores import GroupScore

WIDTH = 80
_LABEL_WIDTH, _MIN_COLUMN, _MAX_COLUMN = 38, 10, 20
_TITLES = {"pairs": "% with the good text likelier", "choices": "% right", "cloze": "% continued as expected"}


@dataclass(frozen=True)
class Row:
    """One measure of every model."""

    section: str
    label: str
    values: tuple[str, ...]
    """One text for each model; "-" where a model has no value."""


@dataclass(frozen=True)
class Report:
    """The results of one or more models on the same material. `str(report)` is the table."""

    models: tuple[ModelFigures, ...]

    def __str__(self) -> str:
        return "\n".join(self._lines())

    @property
    def names(self) -> list[str]:
        """A short name for each model: the end of its path, longer where two are alike."""
        names = [model_name(model.path) for model in self.models]
        return [
            name if names.count(name) == 1 else model_name(model.path, 2)
            for name, model in zip(names, self.models, strict=True)
        ]

    def rows(self) -> list[Row]:
        """Every measure, in the order of the table."""
        return [
            *self._row("", "parameters", lambda model: f"{model.num_parameters:,}"),
            *self._row("", "context, tokens", lambda model: f"{model.config.context_length:,}"),
            *self._text_rows(),
            *self._task_rows(),
            *self._sample_rows(),
        ]

    def to_markdown(self) -> str:
        """The table in Markdown, with the sections as rows in bold."""
        lines = [_markdown_row("", self.names), "|---|" + "---:|" * len(self.models)]
        for section, rows in groupby(self.rows(), key=lambda row: row.section):
            if section:
                lines.append(_markdown_row(f"**{section}**", [""] * len(self.models)))
            lines += [_markdown_row(row.label, row.values) for row in rows]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Every figure under its field's name, for JSON."""
        return {"models": [_as_dict(name, model) for name, model in zip(self.names, self.models, strict=True)]}

    def _lines(self) -> Iterator[str]:
        """The lines of the table; more models than fit beside each other continue in a table below."""
        names = self.names
        if max(map(len, names)) + 2 > _MAX_COLUMN:
            letters = [chr(ord("A") + number % 26) for number in range(len(names))]
            yield from (f"{letter} = {name}" for letter, name in zip(letters, names, strict=True))
            yield ""
            names = letters
        width = max(_MIN_COLUMN, *(len(name) + 2 for name in names))
        rows, at_once = self.rows(), (WIDTH - _LABEL_WIDTH) // width
        for start in range(0, len(names), at_once):
            if start:
                yield ""
            yield _table_row("", names[start : start + at_once], width)
            for section, members in groupby(rows, key=lambda row: row.section):
                if section:
                    yield section
                for row in members:
                    label = f"  {row.label}" if section else row.label
                    yield _table_row(label, row.values[start : start + at_once], width)

    def _row(self, section: str, label: str, show: Callable[[ModelFigures], str]) -> Iterator[Row]:
        yield Row(section, label, tuple(map(show, self.models)))

    def _text_rows(self) -> Iterator[Row]:
        for name in self.models[0].texts:
            section = "bits per byte of text (lower is better)"
            yield from self._row(section, name, lambda model, name=name: f"{model.texts[name].bits_per_byte:.3f}")  # type: ignore[misc]

    def _task_rows(self) -> Iterator[Row]:
        for name, first in self.models[0].tasks.items():
            for kind in dict.fromkeys(score.kind for score in first):
                scores = [[score for score in model.tasks[name] if score.kind == kind] for model in self.models]
                yield from _score_rows(f"{name}: {_TITLES[kind]}{_chance(scores[0])}", scores)

    def _sample_rows(self) -> Iterator[Row]:
        if any(model.samples is None for model in self.models):
            return
        measures = [model.samples for model in self.models if model.samples is not None]
        section = f"samples: {measures[0].num_texts} {'text' if measures[0].num_texts == 1 else 'texts'} of each model"
        for label, show in _SAMPLE_ROWS.items():
            yield Row(section, label, tuple(map(show, measures)))
        if all(each.copies for each in measures):
            for label, show in _COPY_ROWS.items():
                yield Row(section, label, tuple(map(show, measures)))


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


_SAMPLE_ROWS: dict[str, Callable[[SampleMeasures], str]] = {
    "words of a text": lambda found: f"{found.mean_words:.0f}",
    "accepted by the storybook, %": lambda found: _percent(found.accepted),
    "distinct words, %": lambda found: _percent(found.distinct[1]),
    "distinct runs of 2 words, %": lambda found: _percent(found.distinct[2]),
    "distinct runs of 3 words, %": lambda found: _percent(found.distinct[3]),
    f"repeated runs of {REPEATED_WORDS} words, %": lambda found: _percent(found.repeated),
}
_COPY_ROWS: dict[str, Callable[[SampleMeasures], str]] = {
    "longest copy, tokens": lambda found: _copied(found, "longest_tokens"),
    "longest copy, mean tokens": lambda found: _copied(found, "mean_tokens"),
    "longest copy, mean % of a text": lambda found: "-" if found.copies is None else _percent(found.copies.mean_share),
    "texts copied whole": lambda found: "-" if found.copies is None else str(found.copies.whole_texts),
}


def _copied(measures: SampleMeasures, name: str) -> str:
    value = getattr(measures.copies, name)
    return f"{value:.0f}" if value else f"under {SHORTEST_TOKENS}"


def _score_rows(section: str, scores: Sequence[Sequence[GroupScore]]) -> Iterator[Row]:
    """The rows of one kind of tasks of one file; `scores` has the same groups for each model."""
    for number, score in enumerate(scores[0]):
        each = [model[number] for model in scores]
        yield Row(section, score.group, tuple(_percent(found.accuracy) for found in each))
        if score.accuracy_by_length is not None:
            yield Row(
                section, f"{score.group}, by bytes", tuple(_percent(found.accuracy_by_length or 0) for found in each)
            )
        if score.bits_per_byte is not None:
            yield Row(section, f"{score.group}, bits per byte", tuple(f"{found.bits_per_byte:.3f}" for found in each))
    if len(scores[0]) > 1:
        yield Row(section, "all", tuple(_percent(_mean_accuracy(model)) for model in scores))


def _mean_accuracy(scores: Sequence[GroupScore]) -> float:
    """The share of right tasks over all groups."""
    return sum(score.accuracy * score.num_tasks for score in scores) / sum(score.num_tasks for score in scores)


def _chance(scores: Sequence[GroupScore]) -> str:
    """The accuracy of a guess, for the title of a section."""
    known = [score for score in scores if score.chance is not None]
    if not known:
        return ""
    mean = sum((score.chance or 0) * score.num_tasks for score in known) / sum(score.num_tasks for score in known)
    return f" (a guess: {100 * mean:.0f})"


def _table_row(label: str, values: Sequence[str], width: int) -> str:
    shown = label if len(label) < _LABEL_WIDTH else f"{label[: _LABEL_WIDTH - 2]}…"
    return f"{shown:<{_LABEL_WIDTH}}" + "".join(f"{value:>{width}}" for value in values)


def _markdown_row(label: str, values: Sequence[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in (label, *values)) + " |"


def _as_dict(name: str, model: ModelFigures) -> dict[str, Any]:
    values = {
        "name": name,
        "path": str(model.path),
        "num_parameters": model.num_parameters,
        "context_length": model.config.context_length,
        "tokenizer": {"vocab_size": model.config.vocab_size, "fingerprint": model.tokenizer_fingerprint},
        "texts": {
            key: dataclasses.asdict(figures) | {"perplexity": _finite(figures.perplexity)}
            for key, figures in model.texts.items()
        },
        "tasks": {key: [dataclasses.asdict(score) for score in scores] for key, scores in model.tasks.items()},
    }
    return values | {"samples": None if model.samples is None else dataclasses.asdict(model.samples)}


def _finite(value: float) -> float | None:
    """JSON has no infinity."""
    return value if isfinite(value) else None
