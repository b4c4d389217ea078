"""The public functions behave like the commands."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tinyllm
from program_calls import call_program
from tinyllm.cli.app import main
from tinyllm.corpus.storybook import write_stories
from tinyllm.errors import ArtifactError, ConfigError, MismatchError
from training_runs import MODEL, TRAINING, Listener


def test_train_then_generate(tiny_shards: Path, tmp_path: Path) -> None:
    listener = Listener()
    outcome = tinyllm.train(
        tiny_shards,
        tmp_path / "run",
        recipe="storybook",
        reporter=listener,
        model={**MODEL, "intermediate_size": 32},
        training=TRAINING,
        schedule={"num_steps": 4},
    )
    assert outcome.state.step == 4
    assert "saved model" in listener.notes
    text = tinyllm.generate("Once upon a time", model=tmp_path / "run", max_new_tokens=3, temperature=0)
    assert text.startswith("Once upon a time")
    assert text == tinyllm.generate(
        "Once upon a time", model=tmp_path / "run" / "model", max_new_tokens=3, temperature=0
    )


def test_settings_are_checked_before_the_work(tiny_shards: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^unknown key model.depth; did you mean model.dropout"):
        tinyllm.train(tiny_shards, tmp_path / "run", model={"depth": 3})
    with pytest.raises(ConfigError, match=r"^unknown section modle; did you mean model\?$"):
        tinyllm.train(tiny_shards, tmp_path / "run", modle={"num_layers": 1})
    with pytest.raises(ConfigError, match=r"^num_steps stands outside a section; it is a setting of schedule$"):
        tinyllm.train(tiny_shards, tmp_path / "run", num_steps=3)  # type: ignore[arg-type]
    with pytest.raises(MismatchError, match="model.vocab_size is 7"):
        tinyllm.train(tiny_shards, tmp_path / "run", model={"vocab_size": 7})


def test_a_loaded_model_streams_what_it_generates(make_model_dir: Callable[..., Path]) -> None:
    model = tinyllm.load(make_model_dir())
    text = model.generate("Once", max_new_tokens=8, seed=3)[0].text
    assert "".join(model.stream("Once", max_new_tokens=8, seed=3)) == text


def test_a_run_resumes_with_its_own_settings(tiny_shards: Path, tmp_path: Path) -> None:
    small: dict[str, Any] = {
        "model": {**MODEL, "num_layers": 1},
        "training": TRAINING,
        "schedule": {"num_steps": 4, "warmup_steps": 1},
    }
    tinyllm.train(tiny_shards, tmp_path / "run", recipe="storybook", **small)
    outcome = tinyllm.train(tiny_shards, tmp_path / "run", resume=True, schedule={"num_steps": 6})
    assert (outcome.reason, outcome.state.step) == ("done", 6)
    assert outcome.num_tokens == 6 * 2 * 2 * 16
    with pytest.raises(MismatchError, match=r"training.batch_size 2, this run has 3; restore that setting, or start"):
        tinyllm.train(tiny_shards, tmp_path / "run", resume=True, training={"batch_size": 3})


def test_names_complete_in_a_shell_before_they_are_loaded(make_model_dir: Callable[..., Path]) -> None:
    program = (
        "import sys, tinyllm, rlcompleter\n"
        "complete = rlcompleter.Completer({'tinyllm': tinyllm}).complete\n"
        "assert sorted(dir(tinyllm)) == sorted(tinyllm.__all__)\n"
        "assert not {'torch', 'numba', 'numpy'} & set(sys.modules)\n"
        "names = [complete('tinyllm.t', number) for number in range(2)]\n"
        "assert names == ['tinyllm.train(', 'tinyllm.train_tokenizer('], names\n"
        "assert not {'torch', 'numba'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    model = tinyllm.load(make_model_dir(), device="cpu")
    assert not [name for name in dir(model) if name.startswith("_")]
    assert {"embed", "generate", "hidden_states", "logits", "score", "stream", "tokenizer"} <= set(dir(model))


def test_prepare_and_train_tokenizer_write_what_the_commands_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = tmp_path / "stories.txt"
    corpus.write_text("\n<|endoftext|>\n".join(write_stories(60, seed=2)), encoding="utf-8")
    tinyllm.train_tokenizer(corpus, tmp_path / "python", vocab_size=400)
    shards = tinyllm.prepare([corpus], tmp_path / "python", tmp_path / "shards", num_workers=1)
    commands = [
        ["tokenizer", "train", corpus, "-o", tmp_path / "command", "--vocab-size", "400"],
        ["prepare", corpus, "--tokenizer", tmp_path / "command", "-o", tmp_path / "other", "--workers", "1"],
    ]
    for command in commands:
        code, _, err = call_program(capsys, main, *command)
        assert code == 0, err
    for one, other in ((tmp_path / "python", tmp_path / "command"), (tmp_path / "shards", tmp_path / "other")):
        names = {path.name for path in one.iterdir()} - {"manifest.json", ".verified.json"}
        assert len(names) > 2
        for name in names:
            assert (one / name).read_bytes() == (other / name).read_bytes(), name
    assert shards.train_counts.documents + shards.validation_counts.documents == 60
    with pytest.raises(ArtifactError, match="overwrite=True"):
        tinyllm.train_tokenizer(corpus, tmp_path / "python", vocab_size=400)
