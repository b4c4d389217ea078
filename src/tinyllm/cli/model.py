"""`tinyllm info`: shape, size and cost of a model, read from its directory without building it."""

import json
import re
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from tinyllm.addresses import with_addresses
from tinyllm.cli.console import show, show_json
from tinyllm.doctor.model_facts import Facts, read_model_facts
from tinyllm.model import size
from tinyllm.model_dir import DTYPES, StoredTensor, bundled_model
from tinyllm.storage import Manifest


def info(
    model: Annotated[
        Path | None, Parameter(help="Model directory, run directory or another tool's model; default: the bundled one.")
    ] = None,
    /,
    *,
    as_json: Annotated[
        bool, Parameter(name="--json", help="Write the same as JSON.", negative="", show_default=False)
    ] = False,
) -> None:
    """Show parameters, bytes, FLOPs per token and shapes of a model.

    Checks every file against the manifest. For other tools' files, bytes are those after decoding to float32.

    For example:

      tinyllm info runs/storybook
      tinyllm info runs/storybook --json
    """
    facts = read_model_facts(bundled_model() if model is None else model)
    if as_json:
        show_json(describe(facts))
    else:
        show("\n".join(table(facts)))


def describe(facts: Facts) -> dict[str, Any]:
    """The object that --json writes."""
    config = facts.config
    return {
        "model": with_addresses(str(facts.path)),
        "config": config.model_dump(),
        **({"labels": list(facts.label_names)} if facts.label_names else {}),
        "num_parameters": facts.num_parameters,
        "weight_bytes": facts.weight_bytes,
        "cache_bytes_float32": size.cache_bytes(config),
        "forward_flops_per_token": size.forward_flops_per_token(config),
        "training_flops_per_token": size.training_flops_per_token(config),
        "tokenizer": {"vocab_size": facts.tokenizer.vocab_size, "fingerprint": facts.tokenizer.fingerprint},
        "manifest": facts.manifest.details if facts.manifest else None,
        "tensors": {
            name: {"shape": list(tensor.shape), "dtype": DTYPES[tensor.dtype]} for name, tensor in facts.tensors.items()
        },
    }


def table(facts: Facts) -> list[str]:
    """The lines of the text output: facts first, then one line for each kind of tensor."""
    config = facts.config
    dtypes = ", ".join(sorted({DTYPES[tensor.dtype] for tensor in facts.tensors.values()}))
    forward, training = size.forward_flops_per_token(config), size.training_flops_per_token(config)
    rows = {
        "model": with_addresses(str(facts.path)),
        "shape": f"{config.num_layers} layers, hidden {config.hidden_size}, feed-forward {config.intermediate_size}, "
        f"{config.num_heads} heads of {config.head_size}, {config.num_kv_heads} key/value heads",
        "context": f"{config.context_length:,} tokens",
        "vocabulary": f"{config.vocab_size:,} tokens, {'tied' if config.tie_embeddings else 'untied'} embeddings",
        **({"labels": f"{len(facts.label_names)}: {', '.join(facts.label_names)}"} if facts.label_names else {}),
        "parameters": f"{facts.num_parameters:,}",
        "bytes": f"{facts.weight_bytes:,} ({dtypes}), key/value cache {size.cache_bytes(config):,} (float32)",
        "FLOPs per token": f"{forward:,} forward, {training:,} in training",
        "tokenizer": f"fingerprint {facts.tokenizer.fingerprint[:12]}",
        **({"format": facts.source} if facts.source else {}),
        **({} if facts.path.is_file() else _provenance(facts.manifest)),
    }
    width = max(map(len, rows))
    lines = [f"{name:<{width}} {value}" for name, value in rows.items()]
    return [*lines, "", *_shape_lines(facts.tensors)]


def _provenance(manifest: Manifest | None) -> dict[str, str]:
    if manifest is None:
        return {"manifest": "none: not written by tinyllm, so its files could not be checked"}
    known = {"num_parameters", "tokenizer_fingerprint", "dtype"}
    extra = {key: value for key, value in manifest.details.items() if key not in known}
    written = {"written by": f"tinyllm {manifest.tinyllm_version}; every file matches its checksum"}
    return written | {key: value if isinstance(value, str) else json.dumps(value) for key, value in extra.items()}


def _shape_lines(tensors: dict[str, StoredTensor]) -> list[str]:
    """One line for each name, shape and dtype; equal tensors of several layers share a line."""
    rows: dict[tuple[str, str, str], int] = {}
    for name, tensor in tensors.items():
        shape = " x ".join(map(str, tensor.shape))
        row = (re.sub(r"\.layers\.\d+\.", ".layers.N.", name), shape, DTYPES[tensor.dtype])
        rows[row] = rows.get(row, 0) + 1
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return [
        f"{name:<{widths[0]}}  {shape:<{widths[1]}}  {dtype}" + (f"  in {count} layers" if count > 1 else "")
        for (name, shape, dtype), count in rows.items()
    ]
