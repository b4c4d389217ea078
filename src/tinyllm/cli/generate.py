"""`tinyllm generate`: continues a prompt; text on stdout, everything else on stderr."""

import sys
from typing import Annotated, Any

from cyclopts import Parameter

from tinyllm import text_input
from tinyllm.addresses import with_addresses
from tinyllm.cli.console import TEXT_OR_DASH, note, show, show_json
from tinyllm.cli.model_options import ModelOptions
from tinyllm.cli.paths import expand_home
from tinyllm.cli.texts import read_text
from tinyllm.config import SamplingConfig
from tinyllm.errors import ArgumentsError, InputError, UsageError
from tinyllm.generation.generator import Generator
from tinyllm.generation.result import Generation
from tinyllm.generation.window import kept_tokens
from tinyllm.loading import is_model
from tinyllm.model import size

PROMPT_LIMIT_BYTES = 2**20
BETWEEN_SAMPLES = "\n---\n"


def generate(
    *prompt: Annotated[
        str,
        TEXT_OR_DASH,
        Parameter(help="The text to continue, FILE:path, or - for standard input; a model directory may precede it."),
    ],
    sampling: Annotated[
        SamplingConfig, Parameter(name="*", negative_iterable=(), consume_multiple=1)
    ] = SamplingConfig(),  # noqa: B008 (frozen)
    num_samples: Annotated[int, Parameter(help="Texts to generate in one batch.")] = 1,
    unconditional: Annotated[
        bool, Parameter(help="Generate without a prompt.", negative="", show_default=False)
    ] = False,
    stream: Annotated[
        bool | None, Parameter(help="Write each piece of text at once; default on a terminal for one sample.")
    ] = None,
    as_json: Annotated[
        bool,
        Parameter(
            name="--json",
            help="Write in JSON format: texts, token ids, log-probabilities, settings.",
            negative="",
            show_default=False,
        ),
    ] = False,
    options: ModelOptions = ModelOptions(),  # noqa: B008 (frozen)
    stats: Annotated[bool, Parameter(help="Show the engine and its speed.", negative="", show_default=False)] = False,
) -> None:
    """Continue a prompt with a model.

    The model is a model directory, a run directory, or a llama2.c, GGUF or Hugging Face model. The default is the
    model bundled with tinyllm.

    For example:

      tinyllm generate "Once upon a time"
      tinyllm generate runs/storybook "The fox" --temperature 0.8 --seed 7
      tinyllm generate runs/storybook "The fox" --top-k 40 --top-p 0.9
      tinyllm generate stories260K.bin "Once upon a time" --temperature 0
      tinyllm generate runs/storybook FILE:prompt.txt --num-samples 4 --json
      tinyllm generate runs/storybook "The fox" --weights int8 --stats
      tinyllm generate "Once upon a time" --stop "The end" "!"
      echo "Once upon a time" | tinyllm generate --temperature 0
    """
    if num_samples < 1:
        raise UsageError(f"num_samples is {num_samples}; at least 1 is needed", parameter="num_samples")
    check_stops(sampling.stop, prompt, unconditional)
    model, text = read_arguments(prompt, unconditional)
    sampling = _read_stops(sampling)
    if stream and (as_json or num_samples > 1):
        raise ArgumentsError("--stream writes one text in pieces; leave out --json and --num-samples, or --stream")
    generator = options.load(model)
    if model is None:
        _say_bundled(generator)
    advise_on_prompt(text)
    if stream or (stream is None and sys.stdout.isatty() and num_samples == 1 and not as_json):
        generations = [_write_stream(generator, text, sampling)]
    else:
        generations = generator.generate(text, num_samples=num_samples, sampling=sampling)
        if as_json:
            show_json(describe(generator, generations, sampling))
            return
        show(BETWEEN_SAMPLES.join(text + generation.text for generation in generations))
    _say_how_it_went(generator, generations, stats)


def check_stops(stops: tuple[str, ...], prompt: tuple[str, ...], unconditional: bool) -> None:
    """Raises ArgumentsError if --stop consumed the prompt: it takes every text up to the next option."""
    has_prompt = len(prompt) > 1 or (len(prompt) == 1 and not is_model(expand_home(prompt[0])))
    if len(stops) > 1 and not has_prompt and not unconditional:
        raise ArgumentsError(
            f"no prompt: --stop took every text after it ({', '.join(map(repr, stops))}); "
            "put the prompt before --stop, or - for standard input"
        )


def read_arguments(arguments: tuple[str, ...], unconditional: bool) -> tuple[str | None, str]:
    """The model (None = the bundled one) and the prompt in `arguments`.

    Raises ArgumentsError for contradictory arguments, InputError for a prompt that is empty or unreadable.
    """
    if unconditional:
        if len(arguments) > 1:
            raise ArgumentsError("--unconditional takes no prompt; give at most one argument, a model")
        return next((str(expand_home(model)) for model in arguments), None), ""
    match arguments:
        case ():
            return None, read_prompt(None)
        case (only,) if is_model(expand_home(only)):
            return str(expand_home(only)), read_prompt(None)
        case (only,):
            return None, read_prompt(only)
        case (model, prompt):
            return str(expand_home(model)), read_prompt(prompt)
    raise ArgumentsError(f"{len(arguments)} arguments are more than a model and a prompt; put the prompt in quotes")


def describe(generator: Generator, generations: list[Generation], sampling: SamplingConfig) -> dict[str, Any]:
    """The object that --json writes."""
    num_tokens = sum(len(generation.token_ids) for generation in generations)
    seconds = generations[0].seconds
    return {
        "model": with_addresses(str(generator.path)),
        "prompt": generations[0].prompt,
        "settings": sampling.model_dump(exclude={"seed"}),
        "seed": sampling.seed,
        "slid": generations[0].slid,
        "seconds": seconds,
        "tokens_per_second": num_tokens / seconds,
        "samples": [
            {
                "text": generation.text,
                "token_ids": generation.token_ids,
                "log_probabilities": generation.log_probabilities,
                "finish_reason": generation.finish_reason,
            }
            for generation in generations
        ],
    }


def read_prompt(argument: str | None) -> str:
    """The prompt: the argument, the file after `FILE:`, or standard input for `-` or no argument."""
    if argument is None and (sys.stdin is None or sys.stdin.isatty()):
        raise ArgumentsError("no prompt; give one in quotes, FILE:path, or - for standard input")
    prompt = read_text(argument, None, "the prompt", PROMPT_LIMIT_BYTES)
    if not prompt.strip():
        raise InputError("the prompt is empty; give some text, or --unconditional to generate without one")
    return prompt


def advise_on_prompt(prompt: str) -> None:
    """Prints a note if the prompt ends with a space: most tokens begin with one, so the text would have two."""
    if prompt.endswith(" "):
        note("the prompt ends with a space, but most tokens begin with one; texts are usually better without it")


def _read_stops(sampling: SamplingConfig) -> SamplingConfig:
    stops = tuple(text_input.read_argument(stop, "--stop") for stop in sampling.stop)
    return sampling.model_copy(update={"stop": stops})


def _write_stream(generator: Generator, prompt: str, sampling: SamplingConfig) -> Generation:
    stream = generator.stream(prompt, sampling=sampling)
    show(prompt, end="", flush=True)
    for piece in stream:
        show(piece, end="", flush=True)
    show()
    return stream.generation


def _say_bundled(generator: Generator) -> None:
    millions = size.num_parameters(generator.config) / 1e6
    note(f"model: {generator.path} (bundled, {millions:.1f} M parameters; name another before the prompt)")


def _say_how_it_went(generator: Generator, generations: list[Generation], stats: bool) -> None:
    context = generator.config.context_length
    if any(generation.slid for generation in generations):
        note(f"the text outgrew the context of {context} tokens: the window slid to its last {kept_tokens(context)}")
    num_tokens = sum(len(generation.token_ids) for generation in generations)
    seconds = generations[0].seconds
    engine = f" ({generator.engine.description})" if stats else ""
    note(f"{num_tokens} tokens in {seconds:.2f} s, {num_tokens / seconds:,.0f} tokens/s{engine}")
