"""The four commands of the Tiny-LLM tutorial, with its flags, defaults and printed lines, on tinyllm's stages.

    python train_vocab.py --download True --vocab_size 4096
    python preprocess.py
    python train.py
    python sample.py --prompt "One day, Lily met a Shoggoth"

File paths are the tutorial's (`tinyllm.course.layout`), and each call overwrites earlier files. Three things differ:
no command asks for input, the archive is read without unpacking, and a step run too early names the missing one.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args

from tinyllm import storage
from tinyllm.cli.app import run_command
from tinyllm.cli.console import show
from tinyllm.cli.paths import expand_home
from tinyllm.cli.usage import ScriptParser
from tinyllm.config import Config
from tinyllm.corpus.text import DocumentRule
from tinyllm.course.constants import TRAIN_CONSTANTS, translate_constants
from tinyllm.course.layout import (
    CHECKPOINT,
    CORPUS_FOLDER,
    DEFAULT_VOCAB_SIZE,
    choose_shards,
    choose_tokenizer,
    shard_folder,
    tokenizer_file,
)
from tinyllm.course.resume import changed_constants, constants_of, resumed_config
from tinyllm.course.words import in_script_words, translated
from tinyllm.errors import Interrupted

NO_LOSS = 1e9
"""The tutorial's best loss before the first evaluation."""


FROM_SHARDS, FROM_DEVICE = "that of the shards in data/", "bfloat16, and on a CPU the fastest"
"""Defaults that depend on the shards and the device, in place of the tutorial's constants."""


def train_vocab() -> NoReturn:
    """`train_vocab.py`: downloads the corpus on request, and trains the tokenizer `data/tok<size>.model`."""
    parser = _parser(
        "Train a tokenizer for the TinyStories corpus.", "train_vocab.py --download True --vocab_size 4096"
    )
    parser.add_argument("--download", type=_true_or_false, default=True, help="download the corpus if it is missing")
    parser.add_argument("--vocab_size", type=int, default=DEFAULT_VOCAB_SIZE, help="number of tokens (default 4096)")
    _add_text_options(parser)
    _run(parser, _train_vocab)


def preprocess() -> NoReturn:
    """`preprocess.py`: encodes the corpus into shards in `data/tok<size>/`."""
    parser = _parser("Turn the corpus into shards of token ids.", "preprocess.py")
    parser.add_argument(
        "--vocab_size", type=int, help="which tokenizer of data/ to use; default 4096, else the only one"
    )
    _add_text_options(parser)
    parser.add_argument("--workers", type=int, help="processes that encode; default one a core")
    _run(parser, _preprocess)


def train() -> NoReturn:
    """`train.py`: trains the model, with the run directory `output/` and the checkpoint `output/ckpt.pt`."""
    parser = _parser("Train the model; every setting is --key=value.", "train.py --max_iters=1000 --batch_size=16")
    parser.synonyms = {"--resume": "--init_from=resume"}
    from_context = {"vocab_size": FROM_SHARDS, "dtype": FROM_DEVICE}
    for name, default in TRAIN_CONSTANTS.items():
        kind: Callable[[str], Any] = _true_or_false if isinstance(default, bool) else type(default)
        default_text = f"default {from_context.get(name, default)}"
        parser.add_argument(
            f"--{name}", type=kind, default=None if name in from_context else default, help=default_text
        )
    _run(parser, _train)


def sample() -> NoReturn:
    """`sample.py`: continues a prompt with the model in `output/`."""
    parser = _parser("Continue a prompt.", 'sample.py --prompt "One day, Lily met a Shoggoth"')
    parser.add_argument("--prompt", default="One day, Lily met a Shoggoth", help="text to continue, or FILE:path")
    parser.add_argument("--checkpoint", type=_path, default=CHECKPOINT, help="default output/ckpt.pt")
    parser.add_argument("--tokenizer", type=_path, help="default: the one that the model was trained with")
    parser.add_argument("--num_samples", type=int, default=3, help="default 3")
    parser.add_argument("--max_new_tokens", type=int, default=256, help="default 256")
    parser.add_argument("--temperature", type=float, default=1.0, help="default 1.0")
    parser.add_argument("--top_k", type=int, default=300, help="default 300")
    parser.add_argument("--seed", type=int, default=1337, help="default 1337")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps; default auto")
    _run(parser, _sample)


def _train_vocab(arguments: argparse.Namespace) -> None:
    from tinyllm.corpus.documents import read_documents
    from tinyllm.course import vocabulary

    vocabulary.check_vocab_size(arguments.vocab_size)
    if arguments.data:
        texts = (document.text for document in read_documents(arguments.data, **_text_options(arguments)))
        vocabulary.train_tokenizer(texts, arguments.vocab_size)
        return
    if arguments.download:
        vocabulary.download()
    vocabulary.train_vocab(arguments.vocab_size)


def _preprocess(arguments: argparse.Namespace) -> None:
    from tinyllm.cli.console import note
    from tinyllm.cli.shards import EncodingDisplay
    from tinyllm.course.corpus import corpus_inputs
    from tinyllm.course.shards import prepare_corpus
    from tinyllm.shards.writer import keeping_finished_shards

    vocab_size = choose_tokenizer(arguments.vocab_size)
    inputs, output = arguments.data or corpus_inputs(), shard_folder(vocab_size)
    options = {**_text_options(arguments), "num_workers": arguments.workers}
    with keeping_finished_shards(output), EncodingDisplay() as display:
        prepare_corpus(inputs, tokenizer_file(vocab_size), output, reporter=display, **options)
    print("Done.")
    note(f"train on it with: python train.py --vocab_size={vocab_size}")


def _train(arguments: argparse.Namespace) -> None:
    from tinyllm.cli.train import run_training
    from tinyllm.cli.training_display import TrainingDisplay
    from tinyllm.exchange.tutorial_checkpoint import write_tutorial_checkpoint
    from tinyllm.machine.device import pick_device
    from tinyllm.shards.format import ShardSet
    from tinyllm.tokenizer.codec import Tokenizer

    constants = vars(arguments)
    constants["vocab_size"] = choose_shards(arguments.vocab_size)
    if arguments.dtype is None:
        on_cpu = pick_device(arguments.device).type == "cpu"
        constants["dtype"] = "auto" if on_cpu else TRAIN_CONSTANTS["dtype"]
    folder, tokenizer = shard_folder(arguments.vocab_size), tokenizer_file(arguments.vocab_size)
    is_bare = not (folder / storage.MANIFEST_NAME).exists()
    shards = ShardSet.open(folder, tokenizer=Tokenizer.load(tokenizer) if is_bare else None)
    out = _path(arguments.out_dir)
    config = translate_constants(constants)
    if arguments.init_from == "resume":
        config = resumed_config(out, config, changed_constants(constants, TRAIN_CONSTANTS))
        constants |= constants_of(config)
    target = out / CHECKPOINT.name

    class Display(TrainingDisplay):
        """Writes the tutorial's checkpoint with each best model, and shows notes with the script's names."""

        def note(self, message: str) -> None:
            super().note(in_script_words(message))

        def model_saved(self, path: Path) -> None:
            write_tutorial_checkpoint(path, target, constants)

    try:
        run_training(config, shards, out, resume=arguments.init_from == "resume", display=Display(config))
    except Interrupted:
        if not target.exists():
            write_stopped_checkpoint(out, config, target, constants)
        raise


def _sample(arguments: argparse.Namespace) -> None:
    from tinyllm.course.text_generator import TOKENIZER_MODEL, TextGenerator

    generator = TextGenerator(
        str(arguments.checkpoint), str(arguments.tokenizer or TOKENIZER_MODEL), arguments.seed, arguments.device
    )
    texts = generator.sample(
        arguments.prompt, arguments.num_samples, arguments.max_new_tokens, arguments.temperature, arguments.top_k
    )
    for number, text in enumerate(texts, 1):
        show(f"\nSample {number}:\n{text}\n{'-' * 20}")


def write_stopped_checkpoint(run: Path, config: Config, target: Path, constants: dict[str, Any]) -> None:
    """Writes a checkpoint from the newest complete checkpoint of a run that stopped before its first evaluation."""
    from tinyllm.exchange.foreign import ForeignModel
    from tinyllm.exchange.tutorial_checkpoint import write_checkpoint
    from tinyllm.safetensors_file import SafetensorsFile
    from tinyllm.training.checkpoint import WEIGHTS, newest_whole_checkpoint, read_state

    checkpoint, _ = newest_whole_checkpoint(run / "checkpoints")
    if checkpoint is None:
        return
    model = ForeignModel(config.model, dict(SafetensorsFile(checkpoint / WEIGHTS)), None, "checkpoint")
    write_checkpoint(target, model, read_state(checkpoint).step, NO_LOSS, constants)


def _add_text_options(parser: ScriptParser) -> None:
    parser.add_argument("--data", nargs="+", help=f"text files instead of {CORPUS_FOLDER}/*.json")
    rules = get_args(DocumentRule)
    parser.add_argument("--documents", choices=rules, default="auto", help="where a document ends in plain text")
    parser.add_argument("--text_key", help="key of the text in JSON; default story, else text")


def _text_options(arguments: argparse.Namespace) -> dict[str, Any]:
    return {"documents": arguments.documents, "text_key": arguments.text_key}


def _parser(description: str, example: str) -> ScriptParser:
    name = example.split()[0]
    return ScriptParser(prog=name, description=description, epilog=f"example: python {example}")


def _run(parser: ScriptParser, command: Callable[[argparse.Namespace], None]) -> NoReturn:
    def parse_and_run(tokens: Sequence[str]) -> None:
        with translated(in_script_words):
            command(parser.parse_args(tokens))

    run_command(parse_and_run, sys.argv[1:], f"python {parser.prog}")


def _path(text: str) -> Path:
    return expand_home(text)


def _true_or_false(text: str) -> bool:
    """The truth value of a flag: `--download False` is False, although `bool("False")` is True."""
    if text.lower() in ("true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")
