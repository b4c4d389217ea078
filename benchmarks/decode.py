"""Greedy decoding by tinyllm, llama.cpp and transformers on a CPU, with the same weights.

Each comparison measures the same work. llama.cpp's C interface is compared with our engine alone; both include the
choice of the token. transformers' `generate` is compared with `Generator.generate`, which also decodes the text.

    python benchmarks/decode.py [--shapes 260k,15m,42m,110m] [--kinds fp32,int8] [--batch 64] [--json FILE]

`--batch B` decodes B texts side by side, and compares with transformers and with our own decoding of one text.

Peers get the number of threads that our engine uses. That is one for the smallest model, where they are faster with one
thread too. The sides alternate, so that a noisy machine disturbs all of them. Each side's median counts; read the
ratios. stories260K is the trained model of the tests. The other shapes have random weights, which cost the same.
llama.cpp (`pip install llama-cpp-python`) and transformers are left out with one line if they are not installed.
"""

import argparse
import ctypes
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from results import make_parser, medians_in_turns, write_result
from wide_tokenizer import wide_tokenizer

from tinyllm.config import ModelConfig, WeightsKind
from tinyllm.exchange.foreign import ForeignModel
from tinyllm.exchange.gguf import write_gguf
from tinyllm.exchange.gguf_blocks import TensorType
from tinyllm.exchange.read import read_model
from tinyllm.generation.engines.cpu_engine import CpuEngine
from tinyllm.generation.generator import Generator
from tinyllm.kernels.decode.cache import load_decode_kernels
from tinyllm.kernels.decode.weights import PackedWeights
from tinyllm.machine.user_cache import cache_folder
from tinyllm.model.size import parameter_shapes

TRAINED = "260k"
TRAINED_FOLDER = Path(__file__).parents[1] / "tests" / "fixtures" / "stories260K"
SHAPES: dict[str, dict[str, Any]] = {
    "15m": {"hidden_size": 288, "num_layers": 6, "num_heads": 6, "context_length": 256, "vocab_size": 32_000},
    "42m": {"hidden_size": 512, "num_layers": 8, "num_heads": 8, "context_length": 1024, "vocab_size": 32_000},
    "110m": {"hidden_size": 768, "num_layers": 12, "num_heads": 12, "context_length": 1024, "vocab_size": 32_000},
}
GGUF_TYPES: dict[str, TensorType] = {"fp32": TensorType.F32, "bf16": TensorType.BF16, "int8": TensorType.Q8_0}
WHOLE = "tinyllm, whole"
Side = Callable[[int], float]
"""Decodes the given number of tokens; returns tokens per second."""
Measure = Callable[[str, WeightsKind, ForeignModel, Path, argparse.Namespace], list[dict[str, object]]]
"""Measures one model, with a folder for its files; returns records."""


def main() -> None:
    parser = make_model_parser(__doc__, shapes="260k,15m,42m,110m", kinds="fp32,int8", rounds=5)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--batch", type=int, default=1)
    measure_models(measure, parser.parse_args())


def make_model_parser(description: str | None, *, shapes: str, kinds: str, rounds: int) -> argparse.ArgumentParser:
    """A parser with the options of a benchmark of several models, and their defaults."""
    parser = make_parser(description)
    parser.add_argument("--shapes", default=shapes)
    parser.add_argument("--kinds", default=kinds)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--threads", type=int, default=2)
    return parser


def measure_models(measure: Measure, arguments: argparse.Namespace, **changes: int) -> None:
    """Measures each shape, with `changes` of its config, in each kind of weights; writes all records."""
    rows = []
    for shape in arguments.shapes.split(","):
        model = load_shape(shape, **changes)
        for kind in arguments.kinds.split(","):
            with tempfile.TemporaryDirectory() as folder:
                rows += measure(shape, kind, model, Path(folder), arguments)
    write_result(arguments.json, rows)


def load_shape(shape: str, **changes: int) -> ForeignModel:
    """The model of a shape: the trained stories260K, or random weights in the shape with `changes`."""
    if shape == TRAINED:
        return read_model(TRAINED_FOLDER / "stories260K.bin", TRAINED_FOLDER / "tok512.model")
    config = ModelConfig(**SHAPES.get(shape, {}) | changes)
    random = np.random.default_rng(0)
    tensors = {
        name: 0.05 * random.standard_normal(size, np.float32) if len(size) > 1 else np.ones(size, np.float32)
        for name, size in parameter_shapes(config).items()
    }
    return ForeignModel(config, tensors, wide_tokenizer(config.vocab_size), "random weights")


def measure(
    shape: str, kind: WeightsKind, model: ForeignModel, folder: Path, arguments: argparse.Namespace
) -> list[dict[str, object]]:
    """Prints one line for each peer; returns the same numbers as records."""
    num_tokens = min(arguments.tokens, model.config.context_length - 1)
    engine = make_engine(model, kind, arguments.threads)
    makers: dict[str, Callable[[], Side]] = {}
    if arguments.batch > 1:
        makers["one text"] = lambda: lambda count: decode(engine, count, 1)
    else:
        makers["llama.cpp"] = lambda: llama_cpp(model, kind, folder, engine.num_threads)
    if kind != "int8":
        makers["transformers"] = lambda: transformers(model, kind, engine.num_threads, arguments.batch)
    sides: dict[str, Side] = {"tinyllm": lambda count: decode(engine, count, arguments.batch)}
    if "transformers" in makers:
        assert model.tokenizer is not None
        generator = Generator(engine, model.tokenizer, model.config)
        sides[WHOLE] = lambda count: generate(generator, count, arguments.batch)
    for name, make in makers.items():
        try:
            sides[name] = make()
        except ImportError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
    medians = medians_in_turns({name: partial(side, num_tokens) for name, side in sides.items()}, arguments.rounds)
    bare = medians.pop("tinyllm")
    whole = medians.pop(WHOLE, bare)
    read = bare / arguments.batch * engine.weights.numbers.nbytes / 1e9
    label = f"{shape} {kind} x {arguments.batch}"
    print(f"{label:>14}  engine {bare:8,.0f} tok/s ({read:4.1f} GB/s, {engine.num_threads} threads)", flush=True)
    facts = {"gigabytes_read_per_second": read, "num_threads": engine.num_threads}
    rows: list[dict[str, object]] = []
    for peer, theirs in medians.items():
        what, ours = ("generate(), whole", whole) if peer == "transformers" else ("decoding", bare)
        print(f"{label:>14}  {what} {ours:8,.0f}  {peer} {theirs:8,.0f} tok/s  ratio {ours / theirs:.2f}", flush=True)
        rows.append({"what": f"{what}, {label}, tok/s, against {peer}", "ours": ours, "peer": theirs, **facts})
    return rows


def make_engine(model: ForeignModel, kind: WeightsKind, num_threads: int) -> CpuEngine:
    kernels = load_decode_kernels(kind, cache_folder() / "kernels", lambda line: print(line, file=sys.stderr))
    weights = PackedWeights(model.config, model.tensors, kind)
    engine = CpuEngine(model.config, weights, kernels)
    return engine if engine.num_threads <= num_threads else CpuEngine(model.config, weights, kernels, num_threads)


def decode(engine: CpuEngine, num_tokens: int, batch: int) -> float:
    slots = engine.open(batch)
    logits = engine.read(slots, np.ones((batch, 1), np.int64))
    start = time.perf_counter()
    for _ in range(num_tokens):
        logits = engine.read(slots, logits.argmax(axis=-1)[:, None])
    seconds = time.perf_counter() - start
    engine.close(slots)
    return batch * num_tokens / seconds


def generate(generator: Generator, num_tokens: int, batch: int) -> float:
    """Tokens per second of the whole call of a user: prompt, tokens, log-probabilities, text."""
    start = time.perf_counter()
    found = generator.generate([1], num_samples=batch, temperature=0, max_new_tokens=num_tokens)
    # An end token stops ours early, and transformers' never: the rate counts the tokens that were generated.
    return sum(len(generation.token_ids) for generation in found) / (time.perf_counter() - start)


def open_llama_cpp(
    model: ForeignModel, kind: WeightsKind, folder: Path, num_threads: int, num_gpu_layers: int = 0
) -> Any:
    """llama.cpp's model from a file that this writes into `folder`; one batch may fill the context.

    -1 for `num_gpu_layers` is all of them.
    """
    import llama_cpp as cpp

    path = folder / "model.gguf"
    with path.open("wb") as file:
        write_gguf(file, model, GGUF_TYPES[kind], "benchmark")
    context = model.config.context_length
    return cpp.Llama(
        str(path),
        n_gpu_layers=num_gpu_layers,
        n_ctx=context,
        n_batch=context,
        n_threads=num_threads,
        n_threads_batch=num_threads,
        verbose=False,
    )


def llama_cpp(model: ForeignModel, kind: WeightsKind, folder: Path, num_threads: int, num_gpu_layers: int = 0) -> Side:
    """llama.cpp through its C interface, without its Python layer for sampling and text."""
    import llama_cpp as cpp

    llama = open_llama_cpp(model, kind, folder, num_threads, num_gpu_layers)
    token = (cpp.llama_token * 1)()

    def run(count: int) -> float:
        cpp.llama_memory_clear(cpp.llama_get_memory(llama.ctx), True)
        token[0] = 1
        cpp.llama_decode(llama.ctx, cpp.llama_batch_get_one(token, 1))
        start = time.perf_counter()
        for _ in range(count):
            logits = ctypes.cast(cpp.llama_get_logits_ith(llama.ctx, -1), ctypes.POINTER(ctypes.c_float))
            token[0] = int(np.ctypeslib.as_array(logits, (model.config.vocab_size,)).argmax())
            cpp.llama_decode(llama.ctx, cpp.llama_batch_get_one(token, 1))
        return count / (time.perf_counter() - start)

    return run


def open_transformers(model: ForeignModel, kind: WeightsKind, num_threads: int) -> Any:
    """transformers' model in float32 or bfloat16, with its default attention (SDPA)."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tinyllm.model.hugging_face_config import to_hugging_face

    torch.set_num_threads(num_threads)
    config = LlamaConfig(**to_hugging_face(model.config, "float32"))
    theirs = LlamaForCausalLM(config).eval()  # type: ignore[no-untyped-call]
    theirs.load_state_dict({name: torch.from_numpy(values) for name, values in model.tensors.items()}, strict=False)
    theirs.tie_weights()
    return theirs.to(torch.bfloat16) if kind == "bf16" else theirs


def transformers(model: ForeignModel, kind: WeightsKind, num_threads: int, batch: int) -> Side:
    """transformers' own `generate`, greedy, in float32 or bfloat16."""
    import torch

    theirs = open_transformers(model, kind, num_threads)
    prompt = torch.ones(batch, 1, dtype=torch.long)

    def run(count: int) -> float:
        start = time.perf_counter()
        with torch.inference_mode():
            theirs.generate(prompt, max_new_tokens=count, min_new_tokens=count, do_sample=False, pad_token_id=0)
        return batch * count / (time.perf_counter() - start)

    return run


if __name__ == "__main__":
    main()
