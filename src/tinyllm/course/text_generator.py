"""The tutorial's `TextGenerator`: `TextGenerator().sample(start="Once upon a time")`.

Arguments, defaults and the printed line are those of Tiny-LLM's sample.py; `tinyllm.load` does the work.
"""

from pathlib import Path

from tinyllm.course.layout import CHECKPOINT, tokenizer_file
from tinyllm.course.tokenizer import Tokenizer
from tinyllm.errors import InputError

TOKENIZER_MODEL = "tok4096.model"


class TextGenerator:
    """Continues texts with a checkpoint and its tokenizer; prints the number of the model's parameters.

    For the default `tokenizer_model_path`, three places are searched: the run next to the checkpoint, `data/` for the
    same size, and this folder for `tok4096.model`. Raises InputError if the checkpoint is missing, and the errors
    of `tinyllm.load`.
    """

    def __init__(
        self,
        checkpoint: str = str(CHECKPOINT),
        tokenizer_model_path: str = TOKENIZER_MODEL,
        seed: int = 1337,
        device: str | None = None,
        dtype: str = "float32",
    ) -> None:
        from tinyllm.cli.console import note
        from tinyllm.loading import load
        from tinyllm.model.size import num_parameters

        self.checkpoint, self.seed, self.dtype = checkpoint, seed, dtype
        self.device = device or "auto"
        if not Path(checkpoint).exists():
            raise InputError(f"there is no checkpoint {checkpoint}; run python train.py first")
        found = find_tokenizer(Path(checkpoint), tokenizer_model_path)
        self.generator = load(checkpoint, tokenizer=found, device=self.device, dtype=dtype, note=note)
        print(f"Model has {num_parameters(self.generator.config)} parameters.")
        self.tokenizer_model_path = tokenizer_model_path if found is None else str(found)
        self.num_calls = 0

    @property
    def tokenizer(self) -> Tokenizer:
        """The tutorial's `Tokenizer` for this model."""
        return Tokenizer(self.tokenizer_model_path)

    def sample(
        self,
        start: str = "Hello!",
        num_samples: int = 3,
        max_new_tokens: int = 256,
        temperature: float = 1.0,
        top_k: int = 300,
    ) -> list[str]:
        """Texts that begin with `start`; `FILE:PATH` stands for the content of PATH.

        Each call draws other texts; a new TextGenerator with the same seed repeats the sequence.
        """
        from tinyllm.cli.generate import advise_on_prompt, read_prompt

        prompt = read_prompt(start)
        advise_on_prompt(prompt)
        results = self.generator.generate(
            prompt,
            num_samples=num_samples,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            seed=self.seed + self.num_calls,
        )
        self.num_calls += 1
        return [result.prompt + result.text for result in results]


def find_tokenizer(checkpoint: Path, named: str) -> Path | None:
    """The tokenizer of a checkpoint: `named`, or a search for the default name; None leaves the choice to `load`."""
    if named != TOKENIZER_MODEL:
        return Path(named)
    if checkpoint.suffix != ".pt":
        return None
    beside = checkpoint.parent / "model" / "tokenizer.model"
    if beside.is_file():
        return beside
    from tinyllm.exchange.read import read_weights

    same_size = tokenizer_file(read_weights(checkpoint).config.vocab_size)
    return next((path for path in (same_size, Path(named)) if path.is_file()), None)
