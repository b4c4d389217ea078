"""Makes the model that ships in the wheel: storybook corpus, tokenizer, training, and its weights in bfloat16.

    python tools/make_bundled_model.py [--work build/bundled] [--steps N] [--run RUN]

`--run` takes the model of a finished run instead of training one. The model's manifest names its data and settings.
"""

import argparse
from pathlib import Path

import torch

from tinyllm import storage
from tinyllm.cli.data import storybook
from tinyllm.cli.demo import NUM_STORIES, SEED, VOCAB_SIZE, demo_config
from tinyllm.cli.shards import prepare
from tinyllm.cli.tokenizer import train as train_tokenizer
from tinyllm.cli.train import run_training
from tinyllm.model_dir import load_model, save_model
from tinyllm.shards.format import ShardSet

TARGET = Path(__file__).parent.parent / "src" / "tinyllm" / "bundled" / "storybook"
LIMIT_BYTES = 2_500_000


def main() -> None:
    """Trains unless a run is given, then writes the package's model and prints its size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/bundled"))
    parser.add_argument("--steps", type=int)
    parser.add_argument("--run", type=Path)
    arguments = parser.parse_args()
    run = arguments.run or train(arguments.work, arguments.steps)
    model, tokenizer = load_model(run / "model")
    trained = storage.read_manifest(run / "model", "model").details
    details = {
        "step": trained["step"],
        "validation_loss": trained["validation_loss"],
        "trained_on": f"{NUM_STORIES} stories of the storybook, seed {SEED}, {VOCAB_SIZE} tokens",
        "recipe": "storybook",
        "made_by": "make bundled-model",
    }
    save_model(TARGET, model, model.config, tokenizer, details=details, dtype=torch.bfloat16)
    size = sum(path.stat().st_size for path in TARGET.iterdir())
    assert size <= LIMIT_BYTES, f"{size} bytes are more than the wheel's share of {LIMIT_BYTES}"
    print(f"{TARGET}: {size:,} bytes")


def train(work: Path, steps: int | None) -> Path:
    """Writes corpus, tokenizer and shards in `work` and trains; returns the run directory."""
    corpus, tokenizer, shards, run = (work / name for name in ("stories.jsonl", "tokenizer", "shards", "run"))
    storybook(stories=NUM_STORIES, seed=SEED, output=corpus)
    train_tokenizer(str(corpus), vocab_size=VOCAB_SIZE, output=tokenizer, overwrite=True)
    prepare(str(corpus), tokenizer=tokenizer, output=shards, overwrite=True)
    shard_set = ShardSet.open(shards)
    run_training(demo_config(shard_set.tokenizer.vocab_size, steps), shard_set, run, resume=True)
    return run


if __name__ == "__main__":
    main()
