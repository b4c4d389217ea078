"""Reads and writes llama2.c's `.pt` checkpoints, such as `stories42M.pt`: `model_args` and a state dict, zipped.

Three variants are read too:

- `compute_query` for `wq` in course checkpoints
- the prefixes `_orig_mod.` and `module.` of `torch.compile` and `DistributedDataParallel`
- NumPy scalars such as `best_val_loss`

No code in the pickle is run: PyTorch reads it with `weights_only`, after checks of the archive's sizes, its checksums
and the pickle's globals.

The layout is that of `train.py` and `model.py` in karpathy/llama2.c.
"""

import pickle
import pickletools
import re
import struct
import zipfile
import zlib
from codecs import encode
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from tinyllm.config import ModelConfig
from tinyllm.errors import FormatError, InputError
from tinyllm.exchange.foreign import ForeignModel, Tensors, check_tensors, make_config
from tinyllm.exchange.layout import LLAMA2C, halve_heads, interleave_heads
from tinyllm.exchange.llama2c import check_is_plain
from tinyllm.model.size import EMBEDDING, OUTPUT

if TYPE_CHECKING:
    import torch

ROPE_THETA = 10_000.0
"""A constant in llama2.c's `model.py`, which no file stores."""
WRAPPER_PREFIXES = ("_orig_mod.", "module.")
"""Prefixes that `torch.compile` and `DistributedDataParallel` add to each name, in any order."""
COURSE_NAMES = {"compute_query": "wq", "compute_key": "wk", "compute_value": "wv", "compute_output": "wo"}
TABLES = ("freqs_cos", "freqs_sin", "freqs_cis", "mask")
"""Last part of the names of buffers that follow from the config; some checkpoints hold them."""
PICKLE_LIMIT_BYTES = 16 * 2**20

_FIELDS = {"dim": "hidden_size", "n_layers": "num_layers", "n_heads": "num_heads", "vocab_size": "vocab_size"}
_GATE = "model.layers.0.mlp.gate_proj.weight"
_GLOBALS = re.compile(
    r"torch \w+Storage|torch\._utils _rebuild_tensor_v2|torch\._utils _rebuild_parameter|collections OrderedDict"
    r"|numpy\._?core\.multiarray scalar|numpy dtype|_codecs encode"
)
_NUMPY_KINDS = ("bool", "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8")
# OSError: zipfile seeks to any offset in the archive, even before its start.
_ZIP_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, RuntimeError, ValueError, EOFError, OSError),
    MemoryError,
)
# A damaged pickle can fail in PyTorch's reader with any of these: lookups, unpacking, conversions, allocation.
_PICKLE_ERRORS = (
    *(pickle.UnpicklingError, RuntimeError, ValueError, TypeError, LookupError, AttributeError),
    *(EOFError, AssertionError, ArithmeticError, MemoryError, struct.error),
)


def read_pt(path: Path) -> ForeignModel:
    """The model in a `.pt` checkpoint, without a tokenizer. Raises FormatError if it is damaged or of another kind."""
    _check_archive(path)
    checkpoint = _load(path)
    if not isinstance(checkpoint, dict) or not {"model", "model_args"} <= checkpoint.keys():
        found = ", ".join(map(str, checkpoint)) if isinstance(checkpoint, dict) else type(checkpoint).__name__
        raise FormatError(f"{path} holds {found[:200]}; expected a llama2.c checkpoint: model and model_args")
    state = _rename(checkpoint["model"], path)
    tensors = _to_numpy(state, path)
    config = _read_config(checkpoint["model_args"], tensors, path)
    if config.tie_embeddings:
        tensors.pop(OUTPUT, None)
    check_tensors(config, tensors, path)
    return ForeignModel(config, halve_heads(tensors, config), None, "llama2.c .pt")


def write_pt(file: IO[bytes], model: ForeignModel, entries: Mapping[str, object] | None = None) -> None:
    """Writes a checkpoint that llama2.c's `sample.py` and `export.py` load.

    `entries` are further entries next to `model` and `model_args`, such as `iter_num` and `best_val_loss`. Raises
    InputError if llama2.c would load another model from the file.
    """
    import torch

    config = model.config
    check_is_plain(config, "llama2.c's .pt files")
    if config.rope_theta != ROPE_THETA:
        raise InputError(
            f"the model has rope_theta {config.rope_theta}, and llama2.c's .pt files always mean {ROPE_THETA}; "
            "export it as gguf or safetensors"
        )
    if not config.tie_embeddings:
        raise InputError(
            "the model's output projection is not its embedding, but llama2.c ties both when it loads a .pt; "
            "export it as llama2c, gguf or safetensors"
        )
    tensors = interleave_heads(model.tensors, config)
    state = {LLAMA2C.from_hugging_face(name): torch.from_numpy(tensor) for name, tensor in tensors.items()}
    state[LLAMA2C.from_hugging_face(OUTPUT)] = state[LLAMA2C.from_hugging_face(EMBEDDING)]
    model_args = {
        **{theirs: getattr(config, ours) for theirs, ours in _FIELDS.items()},
        "n_kv_heads": config.num_kv_heads,
        "hidden_dim": config.intermediate_size,
        "multiple_of": config.multiple_of,
        "norm_eps": config.norm_eps,
        "max_seq_len": config.context_length,
        "dropout": config.dropout,
    }
    # sample.py looks up the tokenizer of the checkpoint here.
    settings = {"vocab_source": "llama2" if config.vocab_size == 32_000 else "custom", "vocab_size": config.vocab_size}
    torch.save({"model": state, "model_args": model_args, "config": settings, **(entries or {})}, file)


def _check_archive(path: Path) -> None:
    """Raises FormatError unless the zip's records are intact and uncompressed, and its pickle needs only tensors."""
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            for record in records:
                # PyTorch stores records uncompressed; a compressed one could unpack to any size.
                if record.compress_type != zipfile.ZIP_STORED or record.file_size != record.compress_size:
                    raise FormatError(f"{path}: record {record.filename!r} is compressed, expected stored")
            total = sum(record.file_size for record in records)
            if total > size:
                raise FormatError(
                    f"{path} has {size} bytes, but its records claim {total}; they overlap or were cut off"
                )
            damaged = archive.testzip()
            if damaged is not None:
                raise FormatError(f"{path}: record {damaged!r} is damaged, its CRC-32 differs")
            pickles = [record for record in records if record.filename.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise FormatError(
                    f"{path} has {len(pickles)} records data.pkl, expected 1; torch.save did not write it"
                )
            if pickles[0].file_size > PICKLE_LIMIT_BYTES:
                raise FormatError(
                    f"{path}: data.pkl has {pickles[0].file_size} bytes, expected at most {PICKLE_LIMIT_BYTES}"
                )
            content = archive.read(pickles[0])
    except _ZIP_ERRORS as error:
        raise FormatError(f"{path} is not a whole zip archive, which .pt files are: {_one_line(error)}") from None
    _check_pickle(content, path)


def _check_pickle(content: bytes, path: Path) -> None:
    """Checks the pickle's instructions without executing them."""
    try:
        for instruction, argument, position in pickletools.genops(content):
            if instruction.name == "GLOBAL" and not _GLOBALS.fullmatch(str(argument)):
                raise FormatError(f"{path}: data.pkl needs {argument!r} at byte {position}, which no tensor needs")
    except (ValueError, struct.error, OverflowError) as error:
        raise FormatError(f"{path}: data.pkl is damaged: {_one_line(error)}") from None


def _load(path: Path) -> Any:
    import torch

    try:
        with torch.serialization.safe_globals(_numpy_scalars()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except _PICKLE_ERRORS as error:
        raise FormatError(f"{path}: data.pkl is damaged: {_one_line(error)}") from None


def _numpy_scalars() -> list[Any]:
    """The globals in a pickled NumPy number: plain data that is not in PyTorch's own list."""
    scalar = np.float64(0).__reduce__()[0]
    kinds = [type(np.dtype(kind)) for kind in _NUMPY_KINDS]
    return [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")] + [np.dtype, *kinds, encode]


def _without_wrappers(name: str) -> str:
    while name.startswith(WRAPPER_PREFIXES):
        name = name.split(".", 1)[1]
    return name


def _rename(state: object, path: Path) -> "dict[str, torch.Tensor]":
    """The state dict with Hugging Face's names and without tables; names unknown to llama2.c are unchanged."""
    import torch

    if not isinstance(state, Mapping):
        raise FormatError(f"{path}: model is a {type(state).__name__}, expected a state dict")
    renamed: dict[str, torch.Tensor] = {}
    for key, tensor in state.items():
        if not isinstance(key, str) or not isinstance(tensor, torch.Tensor):
            raise FormatError(f"{path}: {key!r} in model is a {type(tensor).__name__}, expected a tensor with a name")
        parts = _without_wrappers(key).split(".")
        if parts[-1] in TABLES:
            continue
        name = LLAMA2C.to_hugging_face(".".join(COURSE_NAMES.get(part, part) for part in parts))
        if name in renamed:
            raise FormatError(f"{path}: model has {key} twice, once under another name")
        renamed[name] = tensor
    return renamed


def _to_numpy(state: "dict[str, torch.Tensor]", path: Path) -> Tensors:
    """Float32 arrays. Raises FormatError if the tensors claim more bytes than the file has."""
    import torch

    claimed = sum(t.numel() * t.element_size() for name, t in state.items() if name != OUTPUT)
    largest = max((t.numel() * t.element_size() for t in state.values()), default=0)
    if max(claimed, largest) > path.stat().st_size:
        # A tensor may repeat one stored number along an axis, so its shape alone proves nothing.
        raise FormatError(f"{path} has {path.stat().st_size} bytes, but its tensors claim {max(claimed, largest)}")
    for name, tensor in state.items():
        if tensor.dtype not in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
            raise FormatError(f"{path}: {name} holds {tensor.dtype}; expected float64, float32, float16 or bfloat16")
    return {name: tensor.detach().to(torch.float32).contiguous().numpy() for name, tensor in state.items()}


def _read_config(model_args: object, tensors: Tensors, path: Path) -> ModelConfig:
    if not isinstance(model_args, Mapping):
        raise FormatError(f"{path}: model_args is a {type(model_args).__name__}, expected a dictionary")
    plain = {key: value.item() if isinstance(value, np.generic) else value for key, value in model_args.items()}
    numbers = {key: value for key, value in plain.items() if type(value) in (int, float)}
    missing = [name for name in (*_FIELDS, "max_seq_len") if name not in numbers]
    if missing:
        raise FormatError(f"{path}: model_args has no number {', '.join(missing)}")
    gate, embedding, output = (tensors.get(name) for name in (_GATE, EMBEDDING, OUTPUT))
    return make_config(
        path,
        **{ours: numbers[theirs] for theirs, ours in _FIELDS.items()},
        num_kv_heads=numbers.get("n_kv_heads", numbers["n_heads"]),
        # Older checkpoints derive the size by a rule with `multiple_of`; the tensor shows the result.
        intermediate_size=numbers.get("hidden_dim", 0 if gate is None else gate.shape[0]),
        context_length=numbers["max_seq_len"],
        norm_eps=numbers.get("norm_eps", numbers.get("layer_norm_eps", 1e-5)),
        rope_theta=numbers.get("rope_theta", ROPE_THETA),
        tie_embeddings=output is None or (embedding is not None and np.array_equal(output, embedding)),
    )


def _one_line(error: Exception) -> str:
    """The first line of the error's message; PyTorch's messages have many."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
