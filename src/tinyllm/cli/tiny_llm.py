"""The four commands of the Tiny-LLM tutorial, with its flags and defaults, on top of tinyllm's own stages.

    python train_vocab.py --download True --vocab_size 4096
    python preprocess.py
    python train.py
    python sample.py --prompt "One day, Lily met a Shoggoth"

Files lie where the tutorial has them: `data/` for corpus, tokenizer and shards, `output/` for the run. What differs:
nothing asks for input, the archive is read in place rather than unpacked, and a step that comes too early says so.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from tinyllm import storage
from tinyllm.cli.app import run_command
from tinyllm.config import Config
from tinyllm.errors import InputError, UsageError
from tinyllm.settings import build_config

DATA = Path("data")
CORPUS_FOLDER, CORPUS_ARCHIVE = DATA / "TinyStories_all_data", DATA / "TinyStories_all_data.tar.gz"
OUTPUT = Path("output")

TRAIN_CONSTANTS: dict[str, Any] = {
    "out_dir": "output",
    "eval_interval": 2000,
    "log_interval": 1,
    "eval_iters": 100,
    "eval_only": False,
    "always_save_checkpoint": False,
    "init_from": "scratch",
    "batch_size": 8,
    "max_seq_len": 256,
    "vocab_size": 4096,
    "dim": 288,
    "n_layers": 8,
    "n_heads": 8,
    "n_kv_heads": 4,
    "multiple_of": 32,
    "dropout": 0.0,
    "gradient_accumulation_steps": 4,
    "learning_rate": 5e-4,
    "max_iters": 100000,
    "weight_decay": 0.1,
    "beta1": 0.9,
    "beta2": 0.95,
    "grad_clip": 1.0,
    "decay_lr": True,
    "warmup_iters": 1000,
    "device": "auto",
    "dtype": "bfloat16",
}
"""Every constant of the tutorial's train.py; `device` was cuda:0 there."""


def train_vocab() -> NoReturn:
    """`train_vocab.py`: fetch the corpus if asked, and train the tokenizer `data/tok<size>.model`."""
    parser = _parser(
        "Train a tokenizer for the TinyStories corpus.", "train_vocab.py --download True --vocab_size 4096"
    )
    parser.add_argument("--download", type=_true_or_false, default=True, help="fetch the corpus if it is not there")
    parser.add_argument("--vocab_size", type=int, default=4096, help="number of tokens (default 4096)")
    parser.add_argument("--data", nargs="+", help=f"text files instead of {CORPUS_FOLDER}/*.json")
    _run(parser, _train_vocab)


def preprocess() -> NoReturn:
    """`preprocess.py`: encode the corpus into shards in `data/tok<size>/`."""
    parser = _parser("Turn the corpus into shards of token ids.", "preprocess.py")
    parser.add_argument("--vocab_size", type=int, help="which tokenizer of data/ to use, if there are several")
    parser.add_argument("--data", nargs="+", help=f"text files instead of {CORPUS_FOLDER}/*.json")
    _run(parser, _preprocess)


def train() -> NoReturn:
    """`train.py`: train the model, into the run directory `output/` and the checkpoint `output/ckpt.pt`."""
    parser = _parser("Train the model; every setting is --key=value.", "train.py --max_iters=1000 --batch_size=16")
    for name, default in TRAIN_CONSTANTS.items():
        kind: Callable[[str], Any] = _true_or_false if isinstance(default, bool) else type(default)
        parser.add_argument(f"--{name}", type=kind, default=default, help=f"default {default}")
    _run(parser, _train)


def sample() -> NoReturn:
    """`sample.py`: continue a prompt with the model of `output/`."""
    parser = _parser("Continue a prompt.", 'sample.py --prompt "One day, Lily met a Shoggoth"')
    parser.add_argument("--prompt", default="One day, Lily met a Shoggoth", help="text to continue, or FILE:path")
    parser.add_argument("--checkpoint", type=Path, default=OUTPUT / "ckpt.pt", help="default output/ckpt.pt")
    parser.add_argument("--tokenizer", type=Path, help="default: the one that the model was trained with")
    parser.add_argument("--num_samples", type=int, default=3)
    parser.add_argument("--max_new_tokens", type=int, default=256)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--top_k", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1337)
    parser.add_argument("--device", default="auto")
    _run(parser, _sample)


def _train_vocab(arguments: argparse.Namespace) -> None:
    from tinyllm.cli.data import download
    from tinyllm.cli.tokenizer import train as train_tokenizer

    if arguments.download and not arguments.data and not _corpus():
        download("tinystories", output=CORPUS_ARCHIVE)
    corpus = arguments.data or _corpus()
    if not corpus:
        raise InputError(
            f"there is no corpus in {CORPUS_FOLDER}; run python train_vocab.py --download True, or name files by --data"
        )
    tokenizer = _tokenizer_folder(arguments.vocab_size)
    train_tokenizer(*corpus, vocab_size=arguments.vocab_size, output=tokenizer, overwrite=True)
    for ending in (".model", ".vocab"):
        copy = DATA / f"tok{arguments.vocab_size}{ending}"
        storage.write_file(copy, (tokenizer / f"tokenizer{ending}").read_bytes())
    print(f"Trained tokenizer is in {DATA / f'tok{arguments.vocab_size}.model'}")


def _preprocess(arguments: argparse.Namespace) -> None:
    from tinyllm.cli.shards import prepare

    corpus = arguments.data or _corpus()
    tokenizer = _trained_tokenizer(arguments.vocab_size)
    if not corpus:
        raise InputError(
            f"there is no corpus in {CORPUS_FOLDER}; run python train_vocab.py --download True first, or use --data"
        )
    vocab_size = tokenizer.name.removeprefix("tokenizer")
    prepare(*corpus, tokenizer=tokenizer, output=DATA / f"tok{vocab_size}", overwrite=True)
    print("Done.")


def _train(arguments: argparse.Namespace) -> None:
    from tinyllm.cli.train import TrainingDisplay, run_training
    from tinyllm.shards.format import ShardSet

    out, folder = Path(arguments.out_dir), DATA / f"tok{arguments.vocab_size}"
    if not folder.is_dir():
        raise InputError(f"there are no shards in {folder}; run python preprocess.py first")
    shards = ShardSet.open(folder)
    config = translate_constants(vars(arguments))

    class Display(TrainingDisplay):
        """Writes the tutorial's checkpoint beside each best model."""

        def model_saved(self, path: Path) -> None:
            write_tutorial_checkpoint(path, out / "ckpt.pt", vars(arguments))

    resume = arguments.init_from == "resume"
    run_training(config, shards, out, resume=resume, display=Display(config))


def _sample(arguments: argparse.Namespace) -> None:
    from tinyllm.cli.generate import read_prompt
    from tinyllm.models import load

    if not arguments.checkpoint.exists():
        raise InputError(f"there is no checkpoint {arguments.checkpoint}; run python train.py first")
    beside = arguments.checkpoint.parent / "model"
    tokenizer = arguments.tokenizer or (beside if beside.is_dir() else None)
    generator = load(arguments.checkpoint, tokenizer=tokenizer, device=arguments.device)
    results = generator.generate(
        read_prompt(arguments.prompt),
        num_samples=arguments.num_samples,
        max_new_tokens=arguments.max_new_tokens,
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        seed=arguments.seed,
    )
    for number, result in enumerate(results, 1):
        print(f"Sample {number}:\n{result.prompt}{result.text}\n{'-' * 20}")


def translate_constants(constants: dict[str, Any]) -> Config:
    """The config that the tutorial's constants describe."""
    decays = constants["decay_lr"]
    return build_config(
        [
            (
                "train.py",
                {
                    "model": {
                        "vocab_size": constants["vocab_size"],
                        "hidden_size": constants["dim"],
                        "num_layers": constants["n_layers"],
                        "num_heads": constants["n_heads"],
                        "num_kv_heads": constants["n_kv_heads"],
                        "multiple_of": constants["multiple_of"],
                        "context_length": constants["max_seq_len"],
                        "dropout": constants["dropout"],
                    },
                    "training": {
                        "batch_size": constants["batch_size"],
                        "accumulation_steps": constants["gradient_accumulation_steps"],
                        "sequence_length": constants["max_seq_len"],
                        "eval_interval": constants["eval_interval"],
                        "eval_iters": constants["eval_iters"],
                        "eval_only": constants["eval_only"],
                        "always_save_checkpoint": constants["always_save_checkpoint"],
                        "init_from": constants["init_from"],
                        "log_interval": constants["log_interval"],
                        "checkpoint_interval": constants["eval_interval"],
                        "device": constants["device"],
                        "dtype": constants["dtype"],
                    },
                    "schedule": {
                        "num_steps": constants["max_iters"],
                        "peak": constants["learning_rate"],
                        "floor": 0.0 if decays else constants["learning_rate"],
                        "warmup_steps": constants["warmup_iters"] if decays else 0,
                    },
                    "optimizer": {
                        "beta1": constants["beta1"],
                        "beta2": constants["beta2"],
                        "weight_decay": constants["weight_decay"],
                        "grad_clip": constants["grad_clip"],
                    },
                },
            )
        ]
    )


def write_tutorial_checkpoint(model: Path, target: Path, constants: dict[str, Any]) -> None:
    """Writes `target` with model, model_args, iter_num, best_val_loss and config, from a model directory."""
    from tinyllm.exchange.llama2c_pt import write_pt
    from tinyllm.exchange.read import read_model

    details = storage.read_manifest(model, "model").details
    entries = {"iter_num": details["step"], "best_val_loss": details["validation_loss"], "config": constants}
    with storage.commit_file(target) as file:
        write_pt(file, read_model(model), entries)


def _corpus() -> list[str]:
    """What preprocess and train_vocab read: the unpacked shards if they are there, else the archive, else nothing."""
    if any(CORPUS_FOLDER.glob("*.json")):
        return [str(CORPUS_FOLDER / "*.json")]
    return [str(CORPUS_ARCHIVE)] if CORPUS_ARCHIVE.exists() else []


def _tokenizer_folder(vocab_size: int | str) -> Path:
    return DATA / f"tokenizer{vocab_size}"


def _trained_tokenizer(vocab_size: int | None) -> Path:
    """The tokenizer that train_vocab.py made: the one of that size, or the only one there is."""
    found = sorted(DATA.glob("tokenizer*/")) if vocab_size is None else [_tokenizer_folder(vocab_size)]
    if not found or not found[0].is_dir():
        size = f" --vocab_size {vocab_size}" if vocab_size else ""
        raise InputError(f"there is no tokenizer in {DATA}; run python train_vocab.py{size} first")
    if len(found) > 1:
        sizes = ", ".join(path.name.removeprefix("tokenizer") for path in found)
        raise UsageError(f"{DATA} has several tokenizers ({sizes}); choose one by --vocab_size")
    return found[0]


def _parser(description: str, example: str) -> argparse.ArgumentParser:
    name = example.split()[0]
    return argparse.ArgumentParser(prog=name, description=description, epilog=f"example: python {example}")


def _run(parser: argparse.ArgumentParser, command: Callable[[argparse.Namespace], None]) -> NoReturn:
    def parse_and_run(tokens: Sequence[str]) -> None:
        command(parser.parse_args(tokens))

    run_command(parse_and_run, sys.argv[1:])


def _true_or_false(text: str) -> bool:
    """`--download False` means no: `bool("False")` would be true."""
    if text.lower() in ("true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")
