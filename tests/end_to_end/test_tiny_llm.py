"""The tutorial's four commands and its Python, run in a copy of the clone."""

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tinyllm.course.constants import TRAIN_CONSTANTS, translate_constants
from tinyllm.course.words import CONSTANTS, in_script_words
from tinyllm.shards.format import ShardSet

ROOT = Path(__file__).parent.parent.parent
TINY = ["--max_iters=4", "--eval_interval=2", "--dim=16", "--n_layers=1", "--n_heads=2", "--n_kv_heads=1"]
TINY += ["--max_seq_len=32", "--batch_size=2", "--gradient_accumulation_steps=1", "--eval_iters=1", "--device=cpu"]
TINY += ["--dtype=float32"]
NUM_STORIES = 60


def command(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder / "src"), "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(folder: Path, script: str, *arguments: str) -> tuple[int, str, str]:
    process = command(folder, script, *arguments)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


@pytest.fixture
def run_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """`run` without a new process: a script that ends early would spend most of its time on imports."""

    def run_script(folder: Path, script: str, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(script, run_name="__main__")
        out, err = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, out, err

    return run_script


def run_python(folder: Path, code: str) -> str:
    """The output of a program that is saved beside the scripts."""
    (folder / "program.py").write_text(code)
    status, out, err = run(folder, "program.py")
    assert status == 0, err
    return out


def write_corpus(folder: Path) -> None:
    """Three files in the tutorial's data folder, each with different stories."""
    corpus = folder / "data" / "TinyStories_all_data"
    corpus.mkdir(parents=True)
    for number in range(3):
        stories = [
            {"story": f" Lily had {i} red balls and {number} big blue hats. She was happy. ", "source": "GPT-4"}
            for i in range(NUM_STORIES)
        ]
        (corpus / f"data{number:02d}.json").write_text(json.dumps(stories))


@pytest.fixture(scope="session")
def make_clone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Copies the scripts and the source of a clone."""

    def make() -> Path:
        folder = tmp_path_factory.mktemp("clone")
        for path in ROOT.glob("*.py"):
            shutil.copy(path, folder)
        shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
        return folder

    return make


@pytest.fixture(scope="module")
def clone(make_clone: Callable[[], Path]) -> Path:
    """A clone with a corpus, after the four commands in their order."""
    folder = make_clone()
    write_corpus(folder)
    return folder


@pytest.fixture(scope="module")
def workshop(clone: Path) -> Path:
    """A clone after the first two commands, for tests that need shards."""
    if not (clone / "data" / "tok300").exists():
        assert run(clone, "train_vocab.py", "--vocab_size", "300")[0] == 0
        assert run(clone, "preprocess.py")[0] == 0
    return clone


def test_each_step_without_its_predecessor_names_the_missing_step(
    make_clone: Callable[[], Path], run_here: Callable[..., tuple[int, str, str]]
) -> None:
    folder = make_clone()
    for script, arguments, missing in (
        ("sample.py", [], "run python train.py first"),
        ("train.py", [], "run python preprocess.py first"),
        ("preprocess.py", [], "run python train_vocab.py first"),
        ("train_vocab.py", ["--download", "False"], "run python train_vocab.py --download True"),
    ):
        code, out, err = run_here(folder, script, *arguments)
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert missing in err


def test_the_four_commands_in_order(clone: Path) -> None:
    code, out, err = run(clone, "train_vocab.py", "--download", "True", "--vocab_size", "300")
    assert code == 0, err
    num_bytes = sum(
        len(record["story"].strip().encode()) + 1
        for path in (clone / "data/TinyStories_all_data").glob("*.json")
        for record in json.loads(path.read_text())
    )
    assert out == (
        "data/TinyStories_all_data already exists, skipping download...\n"
        "Download done.\n"
        "Number of shards: 3\n"
        "Example story:\n"
        "{'story': ' Lily had 0 red balls and 0 big blue hats. She was happy. ', 'source': 'GPT-4'}\n"
        f"Size is: {num_bytes / 1024 / 1024:.2f} MB\n"
        "Will now train the vocab...\n"
        "Trained tokenizer is in data/tok300.model\n"
        "Done.\n"
    )
    assert (clone / "data/tok300.vocab").exists()

    code, out, err = run(clone, "preprocess.py")
    assert code == 0, err
    saved = [line.partition(",")[0] for line in out.splitlines()]
    assert saved == [*(f"Saved data/tok300/data0{number}.bin" for number in range(3)), "Done."]
    assert "train on it with: python train.py --vocab_size=300" in err

    code, out, err = run(clone, "train.py", *TINY)  # finds tok300 by itself, as preprocess.py does
    assert code == 0, err
    checkpoint = torch.load(clone / "output/ckpt.pt", weights_only=True)
    assert set(checkpoint) == {"model", "model_args", "iter_num", "best_val_loss", "config"}
    assert checkpoint["iter_num"] == 4
    assert (checkpoint["model_args"]["dim"], checkpoint["model_args"]["vocab_size"]) == (16, 300)
    assert (checkpoint["config"]["learning_rate"], checkpoint["config"]["vocab_size"]) == (5e-4, 300)
    assert "layers.0.attention.wq.weight" in checkpoint["model"]

    code, out, err = run(clone, "sample.py", "--prompt", "One day, Lily met a Shoggoth", "--max_new_tokens", "5")
    assert code == 0, err
    lines = out.split("\n")
    num_parameters = sum(tensor.numel() for name, tensor in checkpoint["model"].items() if name != "output.weight")
    assert lines[0] == f"Model has {num_parameters} parameters."
    assert lines[1:3] == ["", "Sample 1:"]
    assert lines[3].startswith("One day, Lily met a Shoggoth")
    assert out.count(f"\n{'-' * 20}\n") == 3
    assert run(clone, "sample.py", "--max_new_tokens", "5")[1] == out  # the default prompt and seed


def test_the_first_file_is_for_testing(workshop: Path) -> None:
    shards = ShardSet.open(workshop / "data/tok300")
    assert (shards.validation_counts.documents, shards.train_counts.documents) == (NUM_STORIES, 2 * NUM_STORIES)
    stories = json.loads((workshop / "data/TinyStories_all_data/data00.json").read_text())
    expected = [id for story in stories for id in shards.tokenizer.encode(story["story"].strip(), bos=True)]
    assert shards.validation[0].tolist() == expected


def test_the_documents_python(workshop: Path) -> None:
    """Imports beside the scripts, with the arguments of the documents."""
    out = run_python(
        workshop,
        "from tokenizer import Tokenizer\n"
        "enc = Tokenizer('./data/tok300.model')\n"
        "print(enc.n_words, enc.bos_id, enc.eos_id, enc.pad_id, enc.sp_model.vocab_size(), enc.model_path)\n"
        "ids = enc.encode('Hello, world!', bos=True, eos=True)\n"
        "print(ids[0], ids[1:-1] == enc.sp_model.encode('Hello, world!'), ids[-1], enc.decode(ids))\n"
        "from preprocess import PretokDataset, Task, pretokenize, process_shard\n"
        "kinds = dict(max_seq_len=8, vocab_size=300, vocab_source='custom')\n"
        "for split in ('train', 'val'):\n"
        "    x, y = next(Task.iter_batches(batch_size=2, device='cpu', split=split, **kinds))\n"
        "    print(tuple(x.shape), y.dtype, bool((x[:, 1:] == y[:, :-1]).all()))\n"
        "from train_vocab import download, train_vocab\n"
        "train_vocab(vocab_size=290, num_shards=1)\n"
        "pretokenize(vocab_size=290)\n",
    )
    size = NUM_STORIES * len("Lily had 10 red balls and 0 big blue hats. She was happy.\n") - 10
    assert out == (
        "300 1 2 -1 300 ./data/tok300.model\n"
        "1 True 2 Hello, world!\n"
        "Created a PretokDataset with rng seed 42\n(2, 8) torch.int64 True\n"
        "Created a PretokDataset with rng seed 42\n(2, 8) torch.int64 True\n"
        f"Size is: {size / 1024 / 1024:.2f} MB\nWill now train the vocab...\n"
        "Trained tokenizer is in data/tok290.model\nDone.\n" + "".join(line + "\n" for line in out.splitlines()[-4:])
    )
    assert out.splitlines()[-4].startswith("Saved data/tok290/data00.bin, average seqlen: ")
    for path in (workshop / "data").glob("tok290*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_process_shard_writes_what_train_reads(workshop: Path, make_clone: Callable[[], Path]) -> None:
    """process_shard writes bare files with the same ids, and train.py evaluates on the first."""
    bare = make_clone()
    shutil.copytree(workshop / "data/TinyStories_all_data", bare / "data/TinyStories_all_data")
    shutil.copy(workshop / "data/tok300.model", bare / "data")
    files = sorted(map(str, (bare / "data/TinyStories_all_data").glob("*.json")))
    out = run_python(
        bare,
        "from preprocess import process_shard\n"
        f"for numbered in enumerate({[str(Path(file).relative_to(bare)) for file in files]}):\n"
        "    process_shard(numbered, vocab_size=300, tokenizer_model_path='./data/tok300.model')\n",
    )
    assert [line.partition(",")[0] for line in out.splitlines()] == [
        f"Saved data/tok300/data0{number}.bin" for number in range(3)
    ]
    for number in range(3):
        theirs, ours = (folder / f"data/tok300/data0{number}.bin" for folder in (workshop, bare))
        assert theirs.read_bytes() == ours.read_bytes()
    code, _, err = run(bare, "train.py", *TINY)
    assert code == 0, err
    shards = ShardSet.open(bare / "data/tok300", tokenizer=ShardSet.open(workshop / "data/tok300").tokenizer)
    assert len(shards.validation[0]) == len(np.fromfile(bare / "data/tok300/data00.bin", dtype="<u2"))


def test_the_archive_is_read_like_its_files(workshop: Path, make_clone: Callable[[], Path]) -> None:
    packed = make_clone()
    (packed / "data").mkdir()
    with tarfile.open(packed / "data/TinyStories_all_data.tar.gz", "w:gz") as archive:
        for number in (2, 0, 1):  # a different order than that of the names
            archive.add(workshop / f"data/TinyStories_all_data/data0{number}.json", f"data0{number}.json")
    code, out, err = run(packed, "train_vocab.py", "--vocab_size", "300")
    assert code == 0, err
    assert "data/TinyStories_all_data.tar.gz already exists, skipping download..." in out
    assert "Number of shards: 3\nExample story:\n{'story': 'Lily had 0 red balls and 0 big" in out
    assert run(packed, "preprocess.py")[0] == 0
    first, second = (ShardSet.open(folder / "data/tok300") for folder in (workshop, packed))
    assert first.tokenizer.fingerprint == second.tokenizer.fingerprint
    assert first.validation[0].tolist() == second.validation[0].tolist()
    assert sorted(path.name for path in (packed / "data/tok300").glob("*.bin")) == [f"data0{n}.bin" for n in range(3)]


def test_outputs_are_replaced_and_a_single_file_is_split_by_text(workshop: Path) -> None:
    (workshop / "mine.txt").write_text("\n".join(f"The owl saw {number} cats.<|endoftext|>" for number in range(90)))
    before = (workshop / "data/tok300/manifest.json").read_bytes()
    code, out, err = run(workshop, "preprocess.py", "--vocab_size", "300", "--data", "mine.txt")
    assert (code, "Saved data/tok300/train-00000.bin" in out) == (0, True), err
    assert (workshop / "data/tok300/manifest.json").read_bytes() != before
    assert ShardSet.open(workshop / "data/tok300").validation_counts.documents > 0
    assert run(workshop, "preprocess.py", "--vocab_size", "300")[0] == 0
    assert (workshop / "data/tok300/manifest.json").read_bytes() == before


@pytest.mark.slow
def test_several_vocabularies_ask_for_the_flag(workshop: Path) -> None:
    for name in ("tok310.model", "tok310"):
        source = workshop / "data" / name.replace("310", "300")
        (shutil.copytree if source.is_dir() else shutil.copy)(source, workshop / "data" / name)
    for script, what in (("preprocess.py", "tokenizer"), ("train.py", "encoded corpus")):
        code, _, err = run(workshop, script)
        assert code == 2
        assert err == f"tinyllm: data has a {what} of several sizes (300, 310); choose one by --vocab_size\n"
        code, _, err = run(workshop, script, "--vocab_size", "77")
        assert code == 1
        assert f"or use the one of 300: python {script} --vocab_size 300" in err
    shutil.rmtree(workshop / "data/tok310")
    (workshop / "data/tok310.model").unlink()


@pytest.mark.slow
def test_after_ctrl_c_before_the_first_evaluation_it_samples(workshop: Path) -> None:
    settings = [*TINY[2:], "--eval_interval=4000", "--max_iters=4000", "--out_dir=stopped", "--log_interval=1"]
    process = command(workshop, "train.py", *settings)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("step 1/"):
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGINT
    assert "--init_from=resume" in err
    assert "--resume auto" not in err
    code, out, err = run(workshop, "sample.py", "--checkpoint", "stopped/ckpt.pt", "--max_new_tokens", "3")
    assert code == 0, err
    assert out.count("One day, Lily met a Shoggoth") == 3
    code, _, err = run(workshop, "train.py", *settings, "--resume", "auto")
    assert (code, "unknown option --resume; did you mean --init_from=resume?" in err) == (2, True)
    code, _, err = run(workshop, "train.py", *settings)
    assert code == 2
    assert "already holds a run; go on with --init_from=resume, or choose another --out_dir directory" in err
    shutil.rmtree(workshop / "stopped" / "model", ignore_errors=True)  # a stop without an evaluated model
    assert run(workshop, "sample.py", "--checkpoint", "stopped/ckpt.pt", "--max_new_tokens", "3")[0] == 0


@pytest.mark.slow
def test_a_resumed_run_keeps_its_own_constants(workshop: Path) -> None:
    assert run(workshop, "train.py", *TINY, "--out_dir=small")[0] == 0
    steps = int(next(flag.partition("=")[2] for flag in TINY if flag.startswith("--max_iters")))
    code, out, err = run(workshop, "train.py", "--init_from=resume", f"--max_iters={steps + 2}", "--out_dir=small")
    assert code == 0, err
    assert f"step {steps + 2}: validation loss" in out
    code, _, err = run(workshop, "train.py", "--init_from=resume", "--batch_size=3", "--out_dir=small")
    assert code == 1
    assert "was made with batch_size " in err
    assert "without flags a run keeps its own settings" in err
    assert "--recipe" not in err


def test_text_generator_has_the_documents_arguments(workshop: Path) -> None:
    if not (workshop / "output/ckpt.pt").exists():
        assert run(workshop, "train.py", *TINY)[0] == 0
    out = run_python(
        workshop,
        "from sample import TextGenerator\n"
        "one, two = (TextGenerator(checkpoint='output/ckpt.pt', tokenizer_model_path='data/tok300.model', seed=7,\n"
        "                          device='cpu', dtype='float32') for _ in range(2))\n"
        "settings = dict(start='Lily', num_samples=2, max_new_tokens=6, temperature=1.0, top_k=300)\n"
        "first = one.sample(**settings)\n"
        "print(len(first), all(text.startswith('Lily') for text in first), first == two.sample(**settings))\n"
        "print(first == one.sample(**settings))\n"
        "default = TextGenerator()\n"
        "print(default.seed, default.tokenizer.n_words, len(default.sample('Hello!', max_new_tokens=2)))\n",
    )
    assert out.splitlines()[2:4] == ["2 True True", "False"]
    assert out.splitlines()[5] == "1337 300 3"


def test_wrong_flags_are_usage_errors(workshop: Path, run_here: Callable[..., tuple[int, str, str]]) -> None:
    for script, arguments, message in (
        ("train_vocab.py", ["--download", "perhaps"], "'perhaps' is neither True nor False"),
        ("train_vocab.py", ["--vocab_size", "9"], "vocab_size is 9; at least 260 is needed"),
        ("preprocess.py", ["--documents", "page"], "argument --documents: invalid choice: 'page'"),
        ("train.py", ["--dimension=3"], "unknown option --dimension; did you mean --dim?"),
        ("train.py", ["--learning-rate=3"], "unknown option --learning-rate; did you mean --learning_rate?"),
        ("train.py", ["data/tok300"], "unexpected argument 'data/tok300'"),
        ("train.py", ["--n_heads=7"], "dim 288 is not divisible by n_heads 7"),
        ("sample.py", ["--prompts", "x"], "unknown option --prompts; did you mean --prompt?"),
    ):
        code, out, err = run_here(workshop, script, *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert message in err


def test_advice_about_texts_can_be_followed(workshop: Path) -> None:
    """Messages of the readers name flags that train_vocab.py and preprocess.py have."""
    (workshop / "poems.json").write_text(json.dumps([{"verse": f"The owl saw {n} cats."} for n in range(90)]))
    for script in ("train_vocab.py", "preprocess.py"):
        arguments = [script, "--vocab_size", "300", "--data", "poems.json"]
        code, _, err = run(workshop, *arguments)
        assert code == 1
        assert err.endswith("keys seen: 'verse'; name the one with the text: --text_key\n")
    (workshop / "data/tok300").rename(workshop / "kept")
    code, _, err = run(workshop, *arguments, "--text_key", "verse", "--workers", "1")
    assert code == 0, err
    shutil.rmtree(workshop / "data/tok300")
    (workshop / "kept").rename(workshop / "data/tok300")


def test_messages_use_the_names_of_the_scripts() -> None:
    assert in_script_words("go on with --resume auto, or another --out directory; --output stays") == (
        "go on with --init_from=resume, or another --out_dir directory; --output stays"
    )
    assert in_script_words(
        "lower schedule.peak; hidden_size is 3, training.num_threads is 4; see output/config.toml"
    ) == ("lower learning_rate; dim is 3, training.num_threads is 4; see output/config.toml")


def test_every_name_is_that_of_its_constant() -> None:
    """The table of names against the config that the constants give."""
    for setting, constant in CONSTANTS.items():
        section, _, key = setting.partition(".")
        value = TRAIN_CONSTANTS[constant]
        other: object = {"init_from": "resume", "device": "cpu", "dtype": "float16", "beta1": 0.5, "beta2": 0.5}.get(
            constant
        )
        if other is None:
            other = (not value) if isinstance(value, bool) else value * 2 if value else 0.5
        before, after = (
            getattr(getattr(translate_constants(TRAIN_CONSTANTS | change), section), key)
            for change in ({}, {constant: other})
        )
        assert before != after, setting


def test_every_constant_reaches_the_config() -> None:
    config = translate_constants(TRAIN_CONSTANTS | {"decay_lr": False, "learning_rate": 1e-3})
    assert (config.schedule.peak, config.schedule.floor, config.schedule.warmup_steps) == (1e-3, 1e-3, 0)
    changed = {
        name: (not value if isinstance(value, bool) else value * 2 if isinstance(value, int) else value)
        for name, value in TRAIN_CONSTANTS.items()
    }
    default, other = (translate_constants(c).model_dump() for c in (TRAIN_CONSTANTS, changed))
    same = {f"{s}.{k}" for s in default for k in default[s] if default[s][k] == other[s][k]}
    for field in ("training.batch_size", "model.hidden_size", "schedule.num_steps", "training.eval_only"):
        assert field not in same
