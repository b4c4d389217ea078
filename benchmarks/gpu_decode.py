"""Decoding on one GPU in bfloat16: our static engine against our plain one, transformers and llama.cpp.

    python benchmarks/gpu_decode.py [--shapes 15m,110m] [--batches 1,64] [--tokens 200] [--rounds 5] [--json FILE]
    python benchmarks/gpu_decode.py --device cpu --quick        the same code on a small model, without a GPU

    our engine     `Generator.generate`: one CUDA graph a token, sampling on the device
    plain engine   the same call on the plain PyTorch engine, whose logits go to the host
    transformers   `generate` with its static cache, which it compiles by itself on CUDA
    llama.cpp      its C interface with all layers on the GPU, one text; only if it was built with CUDA

Weights are random, decoding is greedy, and the sides take turns. On a GPU the goal of a token is its weights' bytes /
bandwidth of the memory; read the ratios.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from decode import Side, generate, llama_cpp, load_shape, open_transformers
from gpu_device import add_device_options, check_device, device_title, synchronize
from results import make_parser, medians_in_turns, write_result

from tinyllm.exchange.foreign import ForeignModel
from tinyllm.generation.engines.protocol import Engine
from tinyllm.generation.engines.static_engine import StaticEngine
from tinyllm.generation.engines.torch_engine import TorchEngine
from tinyllm.generation.generator import Generator
from tinyllm.model.transformer import Transformer

OURS, PLAIN = "our engine", "plain engine"
QUICK = {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "context_length": 64, "vocab_size": 512}
ALL_LAYERS = -1


def main() -> None:
    parser = make_parser(__doc__)
    add_device_options(parser)
    parser.add_argument("--shapes", default="15m,110m")
    parser.add_argument("--batches", default="1,64")
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    device = check_device(parser, arguments.device)
    if arguments.quick:
        arguments.shapes, arguments.batches, arguments.tokens, arguments.rounds = "quick", "1,2", 12, 1
    rows = []
    for shape in arguments.shapes.split(","):
        model = load_shape(shape, **QUICK) if shape == "quick" else load_shape(shape)
        for batch in map(int, arguments.batches.split(",")):
            rows += measure(shape, model, batch, device, arguments)
    write_result(arguments.json, {"device": device_title(device), "torch": torch.__version__, "rows": rows})


def measure(
    shape: str, model: ForeignModel, batch: int, device: torch.device, arguments: argparse.Namespace
) -> list[dict[str, object]]:
    """Prints the rates of all sides; returns a row for each peer."""
    with tempfile.TemporaryDirectory() as folder:
        makers: dict[str, Callable[[], Side]] = {
            OURS: lambda: ours(StaticEngine(open_ours(model, device)), model, batch),
            PLAIN: lambda: ours(TorchEngine(open_ours(model, device)), model, batch),
            "transformers": lambda: transformers(model, device, batch),
        }
        if batch == 1:
            makers["llama.cpp"] = lambda: llama_cpp_on(model, device, Path(folder))
        sides: dict[str, Side] = {}
        for name, make in makers.items():
            try:
                sides[name] = make()
            except ImportError as error:
                print(f"{name} is left out: {error}", file=sys.stderr)
        num_tokens = min(arguments.tokens, model.config.context_length - 1)
        medians = medians_in_turns({name: partial(side, num_tokens) for name, side in sides.items()}, arguments.rounds)
    label = f"{shape} bf16 x {batch}"
    for name, rate in medians.items():
        print(f"{label:>16}  {name:14} {rate:10,.0f} tok/s", flush=True)
    rate = medians.pop(OURS)
    return [
        {"what": f"decoding, {label}, {device_title(device)}, tok/s, against {name}", "ours": rate, "peer": theirs}
        for name, theirs in medians.items()
    ]


def open_ours(model: ForeignModel, device: torch.device) -> Transformer:
    """Our module of the weights, in bfloat16."""
    opened = Transformer(model.config)
    weights = {name: torch.from_numpy(values) for name, values in model.tensors.items()}
    opened.load_state_dict(weights)
    return opened.to(device, torch.bfloat16).eval()


def ours(engine: Engine, model: ForeignModel, batch: int) -> Side:
    """`Generator.generate` on `engine`."""
    assert model.tokenizer is not None
    generator = Generator(engine, model.tokenizer, model.config)
    return lambda count: generate(generator, count, batch)


def transformers(model: ForeignModel, device: torch.device, batch: int) -> Side:
    """transformers' `generate` with its static cache. Raises ImportError if transformers is not installed."""
    theirs: Any = open_transformers(model, "bf16", torch.get_num_threads()).to(device)
    prompt = torch.ones(batch, 1, dtype=torch.long, device=device)

    def run(count: int) -> float:
        synchronize(device)
        start = time.perf_counter()
        with torch.inference_mode():
            theirs.generate(
                prompt,
                max_new_tokens=count,
                min_new_tokens=count,
                do_sample=False,
                pad_token_id=0,
                cache_implementation="static",
            )
        synchronize(device)
        return batch * count / (time.perf_counter() - start)

    return run


def llama_cpp_on(model: ForeignModel, device: torch.device, folder: Path) -> Side:
    """llama.cpp on the GPU. Raises ImportError if it is not installed, or was built without CUDA."""
    import llama_cpp as cpp

    if device.type == "cuda" and not cpp.llama_supports_gpu_offload():
        raise ImportError("llama-cpp-python was built without CUDA")
    return llama_cpp(model, "bf16", folder, torch.get_num_threads(), num_gpu_layers=ALL_LAYERS)


if __name__ == "__main__":
    main()
