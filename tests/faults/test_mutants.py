"""Damaged copies of every file of a run, read in a child process with 2 GiB and 5 s, give only TinyllmErrors."""

import bz2
import json
import lzma
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from faults import trials
from fuzz import run_mutants
from tinyllm.shards.format import ShardSet

# Kind, reader, the damaged file inside a directory, and the error that the reader may raise.
CASES = {
    "manifest": ("faults.readers:read_manifest", "manifest.json", "TinyllmError"),
    "shard index": ("faults.readers:read_index", "", "TinyllmError"),
    "checkpoint state": ("faults.readers:read_checkpoint_state", "state.json", "TinyllmError"),
    "config TOML": ("faults.readers:read_config", "", "ConfigError"),
    "JSON corpus": ("faults.readers:read_corpus", "", "TinyllmError"),
    "JSONL corpus": ("faults.readers:read_corpus", "", "TinyllmError"),
    "CSV corpus": ("faults.readers:read_corpus", "", "TinyllmError"),
    "zip corpus": ("faults.readers:read_corpus", "", "TinyllmError"),
    "bzip2 corpus": ("faults.readers:read_corpus", "", "TinyllmError"),
    "xz corpus": ("faults.readers:read_corpus", "", "TinyllmError"),
    "safetensors weights": ("faults.readers:read_checkpoint", "model.safetensors", "TinyllmError"),
    "safetensors moments": ("faults.readers:read_checkpoint", "optimizer.safetensors", "TinyllmError"),
    "tokenizer.json": ("tinyllm.exchange.tokenizer_json:read_tokenizer_json", "", "TinyllmError"),
}


@pytest.fixture
def originals(whole: Path, tiny_shards: Path, tmp_path: Path) -> dict[str, Path]:
    """A valid file of each kind."""
    checkpoint = whole / "checkpoints" / f"step-{trials.NUM_STEPS:08d}"
    texts = [f"Story {n} of a fox — “red”, \\ and \n so on." for n in range(40)]
    num_tokens = ShardSet.open(tiny_shards).train_counts.tokens
    paths = {
        "manifest": checkpoint,
        "checkpoint state": checkpoint,
        "safetensors weights": checkpoint,
        "safetensors moments": checkpoint,
        "tokenizer.json": whole / "model" / "tokenizer.json",
        "config TOML": tmp_path / "tiny.toml",
        "shard index": tmp_path / f"index.{num_tokens}",
        "JSON corpus": tmp_path / "corpus.json",
        "JSONL corpus": tmp_path / "corpus.jsonl",
        "CSV corpus": tmp_path / "corpus.csv",
        "zip corpus": tmp_path / "corpus.zip",
        "bzip2 corpus": tmp_path / "corpus.csv.bz2",
        "xz corpus": tmp_path / "corpus.csv.xz",
    }
    paths["config TOML"].write_text(trials.CONFIG)
    shutil.copyfile(tiny_shards / "train-00000.idx", paths["shard index"])
    paths["JSON corpus"].write_text(json.dumps([{"text": text, "id": n} for n, text in enumerate(texts)], indent=1))
    paths["JSONL corpus"].write_text("".join(json.dumps({"story": text}) + "\n" for text in texts))
    table = "id,text\n" + "".join(f'{n},"{text}"\n' for n, text in enumerate(texts))
    paths["CSV corpus"].write_text(table)
    paths["bzip2 corpus"].write_bytes(bz2.compress(table.encode()))
    paths["xz corpus"].write_bytes(lzma.compress(table.encode()))
    with zipfile.ZipFile(paths["zip corpus"], "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (("a.csv", table), ("b.txt", texts[0]), ("c.md", "")):
            archive.writestr(name, content)
    return paths


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.promise("12 mutants", fast=100, full=10_000)
def test_mutants_give_only_our_errors(
    kind: str,
    count: int,
    tell: Callable[[str], None],
    record_property: Callable[[str, object], None],
    originals: dict[str, Path],
) -> None:
    record_property("fault campaign", {"promise": f"12 mutants of {kind}: only our errors, 2 GiB, 5 s"})
    reader, damaged, refusal = CASES[kind]
    outcome = run_mutants(reader, originals[kind], count, damaged=damaged, refusal=refusal)
    # No reader can detect damage in the values of weights or in the text of a corpus.
    assert outcome.refused > count // 10
    tell(f"{outcome.refused} refused, {outcome.read} read")
