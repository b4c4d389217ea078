"""`python run_llama.py --option generate`: continues one text at several temperatures, and writes one file for each.

Flags, defaults and printed lines are the course's. Its recommended extensions are included: filters, streaming through
the KV cache, and a header with the origin of each file.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from tinyllm import loading, storage, text_input
from tinyllm.cli.console import note, show
from tinyllm.cli.generate import advise_on_prompt
from tinyllm.config import SamplingConfig
from tinyllm.errors import UsageError
from tinyllm.generation.generator import Generator, sampling_config
from tinyllm.model.size import num_parameters
from tinyllm.model_dir import WEIGHTS_NAME, bundled_model

DEFAULT_MODEL = Path("stories42M.pt")
DEFAULT_PREFIX = (
    "I have wanted to see this thriller for a while, and it didn't disappoint. "
    "Keanu Reeves, playing the hero John Wick, is"
)
SEPARATOR = "---------------"


def generate(
    *,
    pretrained_model_path: Annotated[
        Path | None, Parameter(help=f"Model of any format; default: {DEFAULT_MODEL}, else the bundled model.")
    ] = None,
    tokenizer: Annotated[
        Path | None, Parameter(help="Default: inside or next to the model, else tokenizer.model in this folder.")
    ] = None,
    prefix: Annotated[str, Parameter(help="Text to continue.")] = DEFAULT_PREFIX,
    max_sentence_len: Annotated[
        int | None, Parameter(help="Cut the prefix to this many tokens, BOS included; default: no cut.")
    ] = None,
    max_new_tokens: Annotated[int, Parameter(help="Tokens to generate at each temperature.")] = 75,
    temperature: Annotated[
        list[float], Parameter(consume_multiple=True, negative=(), help="One text each; 0 = the most likely token.")
    ] = [0.0, 1.0],  # noqa: B006 (never changed)
    top_k: Annotated[int, Parameter(help="Keep only this many most likely tokens; 0 = all.")] = 0,
    top_p: Annotated[float, Parameter(help="Keep the smallest set of tokens with this total probability.")] = 1.0,
    seed: Annotated[int, Parameter(help="Seed of sampling.")] = 1337,
    stream: Annotated[
        bool, Parameter(negative="", show_default=False, help="Print the text while it is generated.")
    ] = False,
    use_gpu: Annotated[bool, Parameter(negative="", show_default=False, help="Run on the GPU.")] = False,
    generated_sentence_low_temp_out: Annotated[
        Path | None, Parameter(help="File for the lowest temperature; default: generated-sentence-temp-0.txt.")
    ] = None,
    generated_sentence_high_temp_out: Annotated[
        Path | None, Parameter(help="File for the highest temperature; default: generated-sentence-temp-1.txt.")
    ] = None,
    metadata: Annotated[
        Literal["header", "none"], Parameter(help="Begin each file with a header of its origin, or not.")
    ] = "header",
) -> None:
    """Continue a text at several temperatures.

    Files of other temperatures than 0 and 1 are generated-sentence-temp-T.txt.

    For example:

      python run_llama.py --option generate
      python run_llama.py --option generate --pretrained-model-path a.bin --stream
      python run_llama.py --option generate --prefix "One day" --temperature 0 0.7
      python run_llama.py --option generate --top-k 40 --top-p 0.9
    """
    settings = [
        sampling_config(max_new_tokens=max_new_tokens, temperature=value, top_k=top_k, top_p=top_p, seed=seed)
        for value in temperature
    ]
    outputs = name_outputs(temperature, generated_sentence_low_temp_out, generated_sentence_high_temp_out)
    if max_sentence_len is not None and max_sentence_len < 1:
        raise UsageError(f"--max_sentence_len is {max_sentence_len}; it must be at least 1")
    prefix = text_input.read_argument(prefix, "--prefix")
    path = pretrained_model_path or default_model()
    generator = loading.load(path, tokenizer=tokenizer, device="cuda" if use_gpu else "cpu", note=note)
    screen = Screen()
    screen.show(f"load model from {path}\n")
    advise_on_prompt(prefix)
    prompt = _prompt_ids(generator, prefix, max_sentence_len)
    origin = Origin(path, _checksum(generator.path or path), generator, len(prompt))
    for sampling, output in zip(settings, outputs, strict=True):
        screen.show(f"Temperature is {sampling.temperature}\n")
        sentence = _generate(generator, prompt, sampling, stream, screen)
        screen.show(f"{SEPARATOR}\n")
        header = origin.header(sampling) if metadata == "header" else ""
        storage.write_file(output, header + sentence)
        screen.show(f"Wrote generated sentence to {output}.\n")


@dataclass(frozen=True)
class Origin:
    """The facts about model and prompt in a file's header."""

    path: Path
    checksum: str
    generator: Generator
    num_prompt_tokens: int

    def header(self, sampling: SamplingConfig) -> str:
        """The header: lines that begin with `# `, and an empty line."""
        tokenizer = self.generator.tokenizer
        settings = sampling.model_dump(include={"temperature", "top_k", "top_p", "max_new_tokens"})
        facts = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "model": f"{self.path}, {num_parameters(self.generator.config):,} parameters",
            "checksum": self.checksum,
            "tokenizer": f"{tokenizer.name}, {tokenizer.vocab_size:,} tokens, fingerprint {tokenizer.fingerprint[:12]}",
            "seed": str(sampling.seed),
            "settings": ", ".join(f"{name} {value:g}" for name, value in settings.items()),
            "prompt": f"{self.num_prompt_tokens} tokens",
        }
        return "".join(f"# {name}: {text_input.encodable(value)}\n" for name, value in facts.items()) + "\n"


def name_outputs(temperatures: list[float], low: Path | None, high: Path | None) -> list[Path]:
    """The file of each temperature; `low` and `high`, if given, replace those of the lowest and the highest.

    Raises UsageError for a repeated temperature or file, ArtifactError for a file that cannot be written.
    """
    if not temperatures:
        raise UsageError("--temperature has no value; give one or more numbers from 0 on")
    if len(set(temperatures)) < len(temperatures):
        raise UsageError(f"--temperature repeats a value: {', '.join(f'{value:g}' for value in temperatures)}")
    outputs = {value: Path(f"generated-sentence-temp-{value:g}.txt") for value in temperatures}
    if high is not None:
        outputs[max(temperatures)] = high
    if low is not None:
        outputs[min(temperatures)] = low
    if len(set(outputs.values())) < len(outputs):
        raise UsageError("two temperatures would be written to the same file; name two files")
    for path in outputs.values():
        if path.is_dir():
            raise UsageError(f"{path} is a directory; name a file to write the generated sentence to")
        storage.check_writable(path)
    return list(outputs.values())


def default_model() -> Path:
    """The course's checkpoint if it is in this folder, else the bundled model, with a line that says so."""
    if DEFAULT_MODEL.exists():
        return DEFAULT_MODEL
    bundled = bundled_model()
    note(
        f"{DEFAULT_MODEL} is not in this folder, so the bundled model is used; to use it, download {DEFAULT_MODEL} of "
        "karpathy/tinyllamas and the Llama 2 tokenizer.model into this folder"
    )
    return bundled


def _prompt_ids(generator: Generator, prefix: str, max_tokens: int | None) -> list[int]:
    tokenizer = generator.tokenizer
    return tokenizer.encode(prefix, bos=tokenizer.begins_with_bos)[:max_tokens]


class Screen:
    """Standard output that may be closed early (`run_llama.py | head -1`): the files are written all the same."""

    def __init__(self) -> None:
        self._is_closed = False

    def show(self, text: str) -> None:
        """Writes `text` at once, unless the reader has left."""
        if self._is_closed:
            return
        try:
            show(text, end="", flush=True)
        except BrokenPipeError:
            self._is_closed = True


def _generate(generator: Generator, prompt: list[int], sampling: SamplingConfig, stream: bool, screen: Screen) -> str:
    """Prints and returns the prompt and its continuation; piece by piece if `stream`."""
    if not stream:
        (generation,) = generator.generate(prompt, sampling=sampling)
        screen.show(f"{generation.prompt}{generation.text}\n")
        return generation.prompt + generation.text
    pieces = generator.stream(prompt, sampling=sampling)
    screen.show(generator.tokenizer.decode(prompt))
    for piece in pieces:
        screen.show(piece)
    screen.show("\n")
    return pieces.generation.prompt + pieces.generation.text


def _checksum(path: Path) -> str:
    file = path / WEIGHTS_NAME if path.is_dir() else path
    if not file.is_file():
        return "none, because the weights are in several files"
    return f"SHA-256 of {file.name} {storage.sha256_of(file)}"
