"""Training throughput: the whole `tinyllm train` loop against three other ways to train the same model.

    python benchmarks/train_step.py [--rounds 5] [--steps 8] [--json FILE]

The model is the `seed` recipe's (288 wide, 8 layers, 8 heads, 4 key/value heads, vocabulary 4,096), an update is
8 x 256 tokens. Sides: the loop with data, clipping and logging; its bare step on one fixed batch; the plain eager
float32 step with PyTorch's fused attention (how the project began); transformers' LlamaForCausalLM under bfloat16
autocast; and our bare step in float32. Where a processor has no units for bfloat16, all of them compute in float32.
Each side has a process of its own, as its users would have. They take turns within the loop's own run, so that all meet
the same minutes of a noisy machine; the median of the rounds counts, and ratios are what to read. Peak memory comes
from a run of the loop alone.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from results import make_parser, write_result
from wide_tokenizer import wide_tokenizer

from tinyllm.config import Config
from tinyllm.kernels.train import library
from tinyllm.machine.compiled_cache import cache_folder
from tinyllm.machine.system import keep_freed_memory
from tinyllm.model.hugging_face_config import to_hugging_face
from tinyllm.model.transformer import Transformer
from tinyllm.shards.format import ShardSet
from tinyllm.training.builder import build_trainer
from tinyllm.training.loop import Trainer
from tinyllm.training.path import choose_fast_path
from tinyllm.training.step import build_updater

Step = Callable[[], None]
BATCH, LENGTH, VOCAB = 8, 256, 4096
SETTINGS: dict[str, Any] = {
    "model": {"vocab_size": VOCAB, "hidden_size": 288, "num_layers": 8, "num_heads": 8, "num_kv_heads": 4},
    "training": {
        "batch_size": BATCH,
        "accumulation_steps": 1,
        "eval_batches": 1,
        "eval_interval": 1_000_000,
        "device": "cpu",
        "compile": "on",
    },
}


class Way(NamedTuple):
    """How a model is trained here."""

    dtype: str
    attention: str


class Side:
    """A process that makes updates when it is told to."""

    def __init__(self, name: str, way: Way) -> None:
        command = [sys.executable, __file__, "--side", name, "--dtype", way.dtype, "--attention", way.attention]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdin
        assert self.process.stdout
        self.orders, self.answers = self.process.stdin, self.process.stdout
        self.is_ready = self.answers.readline() == "ready\n"

    def seconds(self, num_steps: int) -> float:
        """How long it takes for so many updates now."""
        print(num_steps, file=self.orders, flush=True)
        return float(self.answers.readline())

    def end(self) -> None:
        self.orders.close()
        self.process.wait()


class Turns:
    """A `Reporter` that, every `num_steps` updates of the loop, lets each other side make as many."""

    def __init__(self, num_steps: int, way: Way, side_names: Iterable[str] = ()) -> None:
        self.num_steps = num_steps
        self.way = way
        self.side_names = side_names
        self.sides: dict[str, Side] = {}
        self.rates: dict[str, list[float]] = {}
        self.start = time.perf_counter()

    def step(self, record: dict[str, Any]) -> None:
        """Notes the loop's rate since the last turn, and times the others."""
        if record["step"] % self.num_steps:
            return
        self.add(LOOP, time.perf_counter() - self.start)
        for name, side in self.sides.items():
            time.sleep(0.05)  # until the threads of the one before have gone to sleep
            self.add(name, side.seconds(self.num_steps))
        time.sleep(0.05)
        self.start = time.perf_counter()

    def add(self, name: str, seconds: float) -> None:
        self.rates.setdefault(name, []).append(self.num_steps * BATCH * LENGTH / seconds)

    def note(self, message: str) -> None:
        print(message, file=sys.stderr)

    def evaluation(self, record: dict[str, Any]) -> None:
        """The loop is built and about to begin: now the others can be."""
        if record["step"] == 0:
            sides = {name: Side(name, self.way) for name in self.side_names}
            self.sides = {name: side for name, side in sides.items() if side.is_ready}
            self.start = time.perf_counter()

    def model_saved(self, path: Path) -> None:
        pass

    def end(self) -> None:
        for side in self.sides.values():
            side.end()


def main() -> None:
    arguments = parse_arguments()
    way = Way(arguments.dtype, arguments.attention) if arguments.dtype else fastest_way()
    if arguments.side:
        serve(SIDES[arguments.side](way))
        return
    if arguments.only_loop:
        make_trainer(arguments.only_loop, 5, Turns(1_000_000, way)).train(resume=False, to_toml=lambda _: "")
        return
    with tempfile.TemporaryDirectory() as folder:
        write_shards(Path(folder))
        turns = Turns(arguments.steps, way, SIDES)
        trainer = make_trainer(Path(folder), arguments.steps * (arguments.rounds + 1), turns)
        trainer.train(resume=False, to_toml=lambda _: "")
        turns.end()
        memory = measure_memory(Path(folder), way)
    # The first round also allocates.
    medians = {name: statistics.median(rates[1:]) for name, rates in turns.rates.items()}
    pairs = [(LOOP, name) for name in (BARE, EAGER, TRANSFORMERS)] + [(OURS_FLOAT32, EAGER)]
    records: list[dict[str, Any]] = [
        {"what": f"{ours}, tok/s, against {peer}", "ours": medians[ours], "peer": medians[peer]}
        for ours, peer in pairs
        if peer in medians
    ]
    for record in records:
        ratio = record["ours"] / record["peer"]
        print(f"{record['what']:76} {record['ours']:9,.0f} {record['peer']:9,.0f}   {ratio:.2f} x", flush=True)
    print(f"peak memory of the loop: {memory / 1e6:,.0f} MB")
    write_result(arguments.json, {"rows": records, "rates": turns.rates, "peak_memory_bytes": memory})


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help="Updates of one turn.")
    parser.add_argument("--only-loop", type=Path, help=argparse.SUPPRESS)
    for hidden in ("--side", "--dtype", "--attention"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    return parser.parse_args()


def write_shards(folder: Path) -> None:
    """Random tokens: for speed all text is alike."""
    random = np.random.default_rng(0)
    for name in ("train.bin", "validation.bin"):
        random.integers(3, VOCAB, 400_000, dtype=np.uint16).tofile(folder / name)


def fastest_way() -> Way:
    """What `tinyllm train` would take for a long run."""
    if library.is_supported():
        return Way("bfloat16", "tiled")
    path = choose_fast_path(Config.model_validate(SETTINGS), torch.device("cpu"), 1_000_000, announce)
    announce(path.reason)
    return Way(path.dtype, path.attention)


def make_trainer(folder: Path, num_steps: int, turns: Turns) -> Trainer:
    """The loop as `tinyllm train` runs it: in our kernels or compiled, for which only a benchmark is too short."""
    schedule = {"num_steps": num_steps, "warmup_steps": 10}
    training = SETTINGS["training"] | turns.way._asdict()
    config = Config.model_validate(SETTINGS | {"schedule": schedule, "training": training})
    shards = ShardSet.open(folder, tokenizer=wide_tokenizer(VOCAB))
    return build_trainer(config, shards, folder / f"run-{num_steps}", reporter=turns)


def serve(step: Step | None) -> None:
    """Makes as many updates as each line of the standard input asks for, and answers with their seconds."""
    if step is None:
        return
    step()
    print("ready", flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            step()
        print(time.perf_counter() - start, flush=True)


def announce(line: str) -> None:
    print(line, file=sys.stderr)


def some_tokens() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randint(VOCAB, (BATCH, LENGTH + 1))


def bare_step(way: Way) -> Step:
    keep_freed_memory()
    if way.attention == "tiled" and (problem := library.load(cache_folder() / "kernels", announce)):
        raise SystemExit(problem)
    config = Config.model_validate(SETTINGS | {"training": SETTINGS["training"] | way._asdict()})
    updater = build_updater(Transformer(config.model).train(), config, torch.device("cpu"))
    tokens = some_tokens()

    def step() -> None:
        updater.update([tokens], BATCH * LENGTH)

    return step


def eager_float32() -> Step:
    model, tokens = Transformer(Config.model_validate(SETTINGS).model).train(), some_tokens()
    return plain_step(model, lambda: F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten()))


def transformers(way: Way) -> Step | None:
    try:
        from transformers import LlamaConfig, LlamaForCausalLM
    except ImportError as error:
        print(f"transformers is left out: {error}", file=sys.stderr)
        return None
    tokens = some_tokens()
    shape = to_hugging_face(Config.model_validate(SETTINGS).model, "float32")
    model = LlamaForCausalLM(LlamaConfig(**shape)).train()

    def loss() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=way.dtype == "bfloat16"):
            logits = model(tokens[:, :-1]).logits
        return F.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())

    return plain_step(model, loss)


def plain_step(model: torch.nn.Module, loss: Callable[[], torch.Tensor]) -> Step:
    """An update as textbooks write it."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, betas=(0.9, 0.95), fused=True)

    def step() -> None:
        loss().backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


LOOP, BARE = "tinyllm train", "its bare step"
EAGER, TRANSFORMERS = "the eager float32 step, fused attention", "transformers, in the same precision"
OURS_FLOAT32 = "our float32 step"
SIDES: dict[str, Callable[[Way], Step | None]] = {
    BARE: bare_step,
    EAGER: lambda _: eager_float32(),
    TRANSFORMERS: transformers,
    OURS_FLOAT32: lambda _: bare_step(Way("float32", "explicit")),
}


def measure_memory(shards: Path, way: Way) -> int:
    command = [sys.executable, __file__, "--only-loop", str(shards), "--dtype", way.dtype, "--attention", way.attention]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


if __name__ == "__main__":
    main()
