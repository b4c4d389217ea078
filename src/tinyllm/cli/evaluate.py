"""`tinyllm evaluate`: measures one or more models side by side."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tinyllm import api, text_input
from tinyllm.cli.console import show, show_json
from tinyllm.cli.progress import Display
from tinyllm.config import SamplingConfig
from tinyllm.errors import ArgumentsError

_FILES = Parameter(negative_iterable=(), consume_multiple=1, show_default=False)


def evaluate(
    *models: Annotated[
        Path, Parameter(help="Models to compare: directories, runs or files; default: the bundled one.")
    ],
    data: Annotated[
        Path | None, Parameter(help="Shards: their validation text is measured, their training text compared.")
    ] = None,
    text: Annotated[tuple[Path, ...], _FILES, Parameter(help="Files to measure in bits per byte.")] = (),
    tasks: Annotated[tuple[Path, ...], _FILES, Parameter(help="JSON Lines of pairs, choices or cloze.")] = (),
    pairs: Annotated[bool, Parameter(help="Score the 1,000 pairs of storybook sentences.")] = True,
    num_samples: Annotated[int, Parameter(help="Texts that each model writes; 0 for none.")] = 20,
    prompt: Annotated[str, Parameter(help="Beginning of each sample; default: none.", show_default=False)] = "",
    sampling: Annotated[
        SamplingConfig, Parameter(name="*", negative_iterable=(), consume_multiple=1)
    ] = SamplingConfig(),  # noqa: B008 (frozen)
    max_bytes: Annotated[int, Parameter(help="Limit of the validation text of --data; 0 for all.")] = 200_000,
    as_json: Annotated[
        bool, Parameter(name="--json", help="Write every figure as JSON.", negative="", show_default=False)
    ] = False,
    markdown: Annotated[bool, Parameter(help="Write the table in Markdown.", negative="", show_default=False)] = False,
    tokenizer: Annotated[
        Path | None, Parameter(help="For model files with no tokenizer inside or beside them: .model or tokenizer.bin.")
    ] = None,
    device: Annotated[str, Parameter(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
) -> None:
    """Measure models side by side: bits per byte, grammar, tasks and samples.

    Without options: the share of 1,000 pairs of storybook sentences in which the right one is likelier, and figures of
    20 samples. --data adds bits per byte of validation text, and the longest span that a sample copies from the
    training text. A line of --tasks is an object with good and bad; context, choices and answer; or context and answer.

    For example:

      tinyllm evaluate
      tinyllm evaluate runs/mine runs/other --data shards
      tinyllm evaluate runs/mine --text poem.txt --num-samples 0 --no-pairs
      tinyllm evaluate runs/mine --tasks questions.jsonl --markdown
    """
    if as_json and markdown:
        raise ArgumentsError("--json and --markdown are two forms of the same result; leave one out")
    with Display() as display:
        report = api.evaluate(
            *models,
            data=data,
            text=text,
            tasks=tasks,
            pairs=pairs,
            num_samples=num_samples,
            prompt=text_input.read_argument(prompt, "--prompt"),
            max_bytes=max_bytes,
            tokenizer=tokenizer,
            device=device,
            reporter=display,
            **sampling.model_dump(),
        )
    if as_json:
        show_json(report.to_dict())
    else:
        show(report.to_markdown() if markdown else str(report))
