"""Commands whose paths are addresses: the whole way from a corpus to a story in a bucket, and on on another machine."""

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tinyllm
from object_store import ObjectStore, needs_object_store
from tinyllm.cli.app import main
from tinyllm.errors import ArtifactError, UsageError
from tinyllm.shards.format import ShardSet
from tinyllm.shards.merge import merge_parts
from tinyllm.shards.part_writer import prepare_part
from tinyllm.shards.parts import parts_folder
from tinyllm.shards.writer import prepare
from tinyllm.storage import verify
from tinyllm.tokenizer.codec import Tokenizer
from training_runs import SMALL_RUN

pytestmark = needs_object_store


def run(*arguments: str) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert not end.value.code


def test_a_model_at_an_address_writes_the_text_of_the_local_one(
    object_store: ObjectStore, make_model_dir: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    local = make_model_dir()
    place = object_store.put(local, "runs", "one", "model")
    settings = ("--temperature", "0", "--max-new-tokens", "8")
    texts = []
    for model in (str(local), place, object_store.address("runs", "one")):
        run("generate", model, "Once", *settings)
        texts.append(capsys.readouterr())
    assert texts[0].out == texts[1].out == texts[2].out
    assert f"fetching {place}: " in texts[1].err
    assert "fetching" not in texts[2].err
    before = object_store.network.received_bytes
    run("generate", place, "Once", *settings)
    assert object_store.network.received_bytes - before < (local / "model.safetensors").stat().st_size


def test_a_corpus_at_addresses_gives_the_shards_of_local_files(
    object_store: ObjectStore, tokenizer_file: Path, tmp_path: Path
) -> None:
    texts = [f"Once upon a time fox number {i} saw a ball.\n".encode() for i in range(60)]
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "a.txt").write_bytes(b"".join(texts[:20]))
    (corpus / "b.txt.gz").write_bytes(gzip.compress(b"".join(texts[20:40])))
    (corpus / "c.jsonl").write_text("".join(json.dumps({"text": text.decode()}) + "\n" for text in texts[40:]))
    object_store.put(corpus, "corpus")
    tokenizer = object_store.put(tokenizer_file, "tiny.model")
    options = {"documents": "line", "validation_fraction": 0.1, "num_workers": 1}
    local = tinyllm.prepare(corpus, tokenizer_file, tmp_path / "local", **options)  # type: ignore[arg-type]
    address = object_store.address("shards")
    pattern = object_store.address("corpus", "*")
    tinyllm.prepare(pattern, tokenizer, address, **options)  # type: ignore[arg-type]
    opened = ShardSet.open(address, verify="full")
    ours, theirs = ([*shards.train, *shards.validation] for shards in (opened, local))
    assert [array.tobytes() for array in ours] == [array.tobytes() for array in theirs]
    tinyllm.prepare(object_store.address("corpus"), tokenizer, address, **options)  # type: ignore[arg-type]
    with pytest.raises(tinyllm.errors.ArtifactError, match=f"{address} exists already|shards exists already"):
        tinyllm.prepare(pattern, tokenizer, address, documents="line", num_workers=1)


def test_parts_at_an_address_give_the_shards_of_one_process(
    object_store: ObjectStore, tokenizer_file: Path, tmp_path: Path
) -> None:
    """The merge finds the number of tasks by itself, and names the part that is missing before it fetches any."""
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text("".join(f"Once upon a {name} time fox {i} ran.\n" for i in range(30)))
        object_store.put(tmp_path / f"{name}.txt", "corpus", f"{name}.txt")
    inputs, output = [object_store.address("corpus")], Path(object_store.address("shards"))
    tokenizer = Tokenizer.load(tokenizer_file)
    options: dict[str, Any] = {"documents": "line", "validation_fraction": 0.1}
    whole = prepare(inputs, tokenizer, tmp_path / "whole", num_workers=1, **options)
    with pytest.raises(ArtifactError, match=r"s3://\S+/shards.parts has no parts to merge"):
        merge_parts(inputs, tokenizer, tmp_path / "merged", folder=parts_folder(output), **options)
    for task in (0, 2):
        prepare_part(inputs, tokenizer, output, task=task, num_tasks=3, num_workers=1, **options)
    with pytest.raises(ArtifactError, match=r"s3://\S+/part-00001-of-00003 is missing") as missing:
        merge_parts(inputs, tokenizer, tmp_path / "merged", folder=parts_folder(output), **options)
    assert missing.value.hint == "make it with: `prepare_part(task=1, num_tasks=3)`"
    prepare_part(inputs, tokenizer, output, task=1, num_tasks=3, num_workers=1, **options)
    merged = merge_parts(inputs, tokenizer, tmp_path / "merged", folder=parts_folder(output), **options)
    for path in sorted(whole.path.iterdir()):
        if path.suffix in (".bin", ".idx"):
            assert (merged.path / path.name).read_bytes() == path.read_bytes()


def test_a_bucket_that_is_not_there_is_named_before_the_work(
    object_store: ObjectStore, tiny_shards: Path, tokenizer_file: Path, tmp_path: Path
) -> None:
    message = r"cannot be written: there is no bucket s3://no-such-bucket; make it first"
    with pytest.raises(UsageError, match=message):
        tinyllm.prepare("no file", tokenizer_file, "s3://no-such-bucket/shards")
    with pytest.raises(UsageError, match=message):
        tinyllm.train(tiny_shards, "s3://no-such-bucket/run", **SMALL_RUN)


def test_a_run_goes_on_on_another_machine_with_the_numbers_of_one(
    object_store: ObjectStore, tiny_shards: Path, tmp_path: Path, other_machine: Callable[[str], Path]
) -> None:
    place = object_store.address("runs", "one")
    shards = object_store.put(tiny_shards, "shards")
    tinyllm.train(tiny_shards, tmp_path / "whole", **SMALL_RUN, schedule={"num_steps": 8})
    part = {**SMALL_RUN, "training": {**SMALL_RUN["training"], "max_minutes": 1e-9}}
    outcome = tinyllm.train(shards, place, **part, schedule={"num_steps": 8})
    assert outcome.state.step < 8
    with pytest.raises(tinyllm.errors.UsageError, match="already holds a run"):
        tinyllm.train(shards, place, **SMALL_RUN)
    other_machine("second")
    with pytest.raises(tinyllm.errors.UsageError, match="already holds a run"):
        tinyllm.train(shards, place, **SMALL_RUN)
    assert tinyllm.train(shards, place, resume=True, training={"max_minutes": 0}).state.step == 8
    found = object_store.get(tmp_path / "found", "runs", "one")
    assert _losses(found) == _losses(tmp_path / "whole")
    for folder in (*(found / "checkpoints").iterdir(), found / "model"):
        verify(folder)
    assert sorted(path.name for path in (found / "checkpoints").iterdir())[-1] == "step-00000008"
    assert not [name for name in object_store.names() if "upload" in name or ".next" in name]


def _losses(run: Path) -> list[tuple[int, float | None, float | None]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [(line["step"], line.get("loss"), line.get("validation_loss")) for line in lines]


def test_commands_without_an_address_load_no_driver() -> None:
    program = (
        "import sys, tinyllm.loading, tinyllm.corpus.documents, tinyllm.cli.generate\n"
        "assert not {'s3fs', 'fsspec', 'botocore', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
