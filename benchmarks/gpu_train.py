"""Training on one GPU: tokens a second, MFU and peak memory of our update and of three other ways to train the model.

    python benchmarks/gpu_train.py [--shapes seed,15m,110m] [--rounds 5] [--steps 5] [--json FILE]
    python benchmarks/gpu_train.py --device cpu --quick        the same code on a small model, without a GPU

The sides train the same architecture on one fixed batch, in bfloat16, with AdamW and clipping:

    our update           that of `tinyllm train`: compiled blocks, fused AdamW, the head's loss in chunks
    llama2.c's settings  those of its train.py: autocast, the whole model compiled, TF32, fused AdamW, whole logits
    nanoGPT-style eager  the same without compilation
    transformers         LlamaForCausalLM under autocast, eager, with scaled_dot_product_attention

The two in the middle are plain PyTorch on our module, whose layers are the same. Each side is built, warmed up, timed
and freed before the next one, so that peak memory is its own. MFU is that of PaLM, appendix B: FLOPs of the model a
second / peak of the GPU (`src/tinyllm/doctor/devices.py`).
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from gpu_device import (
    add_device_options,
    check_device,
    device_title,
    peak_flops,
    peak_memory,
    reset_memory,
    synchronize,
)
from results import make_parser, write_result
from train_step import Step, plain_step

from tinyllm.config import Config
from tinyllm.model.hugging_face_config import to_hugging_face
from tinyllm.model.size import training_flops_per_token
from tinyllm.model.transformer import Transformer
from tinyllm.training.step import build_updater

NUM_WARM_UPS = 3
"""Updates before the timed ones: they compile and allocate."""


class Shape(NamedTuple):
    """A model, and the windows of its microbatch: windows x tokens."""

    model: dict[str, int]
    batch_size: int
    length: int


SHAPES = {
    "seed": Shape(
        {"vocab_size": 4096, "hidden_size": 288, "num_layers": 8, "num_heads": 8, "num_kv_heads": 4}, 64, 256
    ),
    "15m": Shape({"vocab_size": 32_000, "hidden_size": 288, "num_layers": 6, "num_heads": 6}, 128, 256),
    "110m": Shape(
        {"vocab_size": 32_000, "hidden_size": 768, "num_layers": 12, "num_heads": 12, "context_length": 1024}, 16, 1024
    ),
}
"""`15m` has the shape and the batch of llama2.c's train.py."""
QUICK = Shape({"vocab_size": 512, "hidden_size": 32, "num_layers": 2, "num_heads": 2, "context_length": 32}, 2, 32)


class Task(NamedTuple):
    """One training to measure."""

    shape: Shape
    device: torch.device
    compiles: bool

    @property
    def config(self) -> Config:
        """The config of our run."""
        training = {
            "batch_size": self.shape.batch_size,
            "sequence_length": self.shape.length,
            "accumulation_steps": 1,
            "dtype": "bfloat16",
            "attention": "fused",
            "compile": "on" if self.compiles else "off",
        }
        return Config.model_validate({"model": self.shape.model, "training": training})

    def tokens(self) -> torch.Tensor:
        """One batch (batch_size, length + 1) int64."""
        torch.manual_seed(0)
        shape = (self.shape.batch_size, self.shape.length + 1)
        return torch.randint(self.shape.model["vocab_size"], shape, device=self.device)


def main() -> None:
    parser = make_parser(__doc__)
    add_device_options(parser)
    parser.add_argument("--shapes", default="seed,15m,110m")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5, help="Updates of a round.")
    arguments = parser.parse_args()
    device = check_device(parser, arguments.device)
    shapes = {"quick": QUICK} if arguments.quick else {name: SHAPES[name] for name in arguments.shapes.split(",")}
    # llama2.c and nanoGPT allow TF32; the float32 products that remain profit on every side.
    torch.backends.cuda.matmul.allow_tf32 = True
    rows = []
    for name, shape in shapes.items():
        # Compiling for a CPU takes a minute and says nothing about a GPU.
        rows += measure_shape(name, Task(shape, device, compiles=device.type == "cuda"), arguments)
    write_result(arguments.json, {"device": device_title(device), "torch": torch.__version__, "rows": rows})


def measure_shape(name: str, task: Task, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Prints a line for each side; returns a row for each peer."""
    title = device_title(task.device)
    peak = peak_flops(title)
    measured: dict[str, dict[str, Any]] = {}
    for side, make in SIDES.items():
        reset_memory(task.device)
        try:
            step = make(task)
        except ImportError as error:
            print(f"{side} is left out: {error}", file=sys.stderr)
            continue
        rate = tokens_per_second(step, task, arguments.rounds, arguments.steps)
        mfu = rate * training_flops_per_token(task.config.model) / peak if peak else None
        measured[side] = {"rate": rate, "mfu": mfu, "memory_bytes": peak_memory(task.device)}
        print(f"{name:>6}  {side:20} {describe(measured[side])}", flush=True)
        del step
    ours = measured.pop(OURS)
    return [
        {
            "what": f"training, {name}, {title}, tok/s, against {side}",
            "ours": ours["rate"],
            "peer": theirs["rate"],
            "our_mfu": ours["mfu"],
            "our_memory_bytes": ours["memory_bytes"],
            "peer_memory_bytes": theirs["memory_bytes"],
        }
        for side, theirs in measured.items()
    ]


def describe(measured: dict[str, Any]) -> str:
    """The numbers of one side in one line."""
    mfu, memory = measured["mfu"], measured["memory_bytes"]
    return (
        f"{measured['rate']:12,.0f} tok/s   MFU {'unknown' if mfu is None else f'{mfu:.1%}'}   "
        f"peak memory {'unknown' if memory is None else f'{memory / 1e9:.2f} GB'}"
    )


def tokens_per_second(step: Step, task: Task, num_rounds: int, num_steps: int) -> float:
    """The median rate of the rounds."""
    for _ in range(NUM_WARM_UPS):
        step()
    rates = []
    for _ in range(num_rounds):
        synchronize(task.device)
        start = time.perf_counter()
        for _ in range(num_steps):
            step()
        synchronize(task.device)
        seconds = time.perf_counter() - start
        rates.append(num_steps * task.shape.batch_size * task.shape.length / seconds)
    return statistics.median(rates)


def our_step(task: Task) -> Step:
    """The update of `tinyllm train`."""
    config, tokens = task.config, task.tokens()
    updater = build_updater(Transformer(config.model).to(task.device).train(), config, task.device)

    def step() -> None:
        updater.update([tokens], config.tokens_per_step)

    return step


def plain(task: Task, compiles: bool) -> Step:
    """Autocast and whole logits on our module, as nanoGPT and llama2.c train theirs."""
    tokens = task.tokens()
    module = Transformer(task.config.model).to(task.device).train()
    model: Callable[[torch.Tensor], torch.Tensor] = torch.compile(module) if compiles else module

    def loss() -> torch.Tensor:
        with torch.autocast(task.device.type, torch.bfloat16):
            logits = model(tokens[:, :-1])
            return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())

    return plain_step(module, loss)


def transformers(task: Task) -> Step:
    """The plain step on transformers' model. Raises ImportError if transformers is not installed."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokens = task.tokens()
    theirs: Any = LlamaForCausalLM(LlamaConfig(**to_hugging_face(task.config.model, "float32")))
    assert theirs.config._attn_implementation == "sdpa"
    model = theirs.to(task.device).train()

    def loss() -> torch.Tensor:
        with torch.autocast(task.device.type, torch.bfloat16):
            logits = model(tokens[:, :-1], use_cache=False).logits
            return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())

    return plain_step(model, loss)


OURS = "our update"
SIDES: dict[str, Callable[[Task], Step]] = {
    OURS: our_step,
    "llama2.c's settings": lambda task: plain(task, compiles=task.compiles),
    "nanoGPT-style eager": lambda task: plain(task, compiles=False),
    "transformers": transformers,
}


if __name__ == "__main__":
    main()
