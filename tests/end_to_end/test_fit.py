"""`tinyllm fit` as a person types it: from texts to a model, on after a stop, and refusals that leave files alone."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import tinyllm
from byte_level import save_byte_level
from tinyllm import api
from tinyllm.config import Config
from tinyllm.corpus.own_outputs import FIT_KIND
from tinyllm.corpus.storybook import write_stories
from tinyllm.errors import Interrupted, UsageError
from tinyllm.exchange.tokenizer_source import load_tokenizer
from tinyllm.planning import stages
from tinyllm.planning.plan import Limits
from tinyllm.planning.reporter import FitReporter
from tinyllm.planning.speed import Speed

Call = Callable[..., tuple[int, str, str]]
SMALL = ("--max-parameters", "60000")


@pytest.fixture
def stories(tmp_path: Path) -> Path:
    """400 stories as JSON Lines."""
    path = tmp_path / "stories.jsonl"
    path.write_text("\n".join(json.dumps({"text": story}) for story in write_stories(400, seed=3)), encoding="utf-8")
    return path


@pytest.fixture
def _known_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of a known speed, so that a test neither waits for measurements nor depends on them."""
    monkeypatch.setattr(stages, "measure_speed", lambda: Speed(0.002, 1e11))
    monkeypatch.setattr(stages, "measure_update_seconds", lambda *_, **__: 0.01)


@pytest.fixture
def _few_updates(_known_speed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that seems slow, so that runs have the fewest updates."""
    monkeypatch.setattr(stages, "measure_update_seconds", lambda *_, **__: 1.0)


def test_texts_become_a_model_and_the_same_command_goes_on(
    call_tinyllm: Call, stories: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("fit", stories.name, "--minutes", "0.15", *SMALL, "-o", "run")
    with monkeypatch.context() as patch:
        patch.setattr(api, "run_training", stop)
        assert call_tinyllm(*command)[0] == 130
    plan, shards = (Path("run") / name for name in ("plan.json", "shards/manifest.json"))
    written = plan.read_bytes(), shards.stat().st_mtime_ns
    code, out, err = call_tinyllm(*command)
    assert code == 0, err
    assert (plan.read_bytes(), shards.stat().st_mtime_ns) == written
    assert "going on with the plan in" in err
    assert "expected" in out
    assert "bits per byte on held-out text" in out
    assert out.count("tinyllm generate") == 1
    assert tinyllm.generate("Once", model="run/model", max_new_tokens=3)
    code, out, err = call_tinyllm(*command)
    assert code == 0, err
    assert "nothing is left to train" in err


@pytest.mark.slow
@pytest.mark.usefixtures("_few_updates")
def test_the_texts_may_be_in_the_working_folder_and_the_next_command_has_all_options(
    call_tinyllm: Call, stories: Path
) -> None:
    """The run is inside the folder of texts. No call reads its files."""
    records = [json.loads(line)["text"] for line in stories.read_text(encoding="utf-8").splitlines()]
    stories.write_text("\n".join(json.dumps({"story": each}) for each in records), encoding="utf-8")
    command = ("fit", ".", "--minutes", "0.1", "--text-key", "story", *SMALL)
    code, out, err = call_tinyllm(*command)
    assert code == 0, err
    assert out.endswith("tinyllm fit . --minutes 0.2 --text-key story --max-parameters 60000 -o runs/mine-longer\n")
    code, _, err = call_tinyllm(*command)
    assert code == 0, err
    assert "nothing is left to train" in err
    assert "training for about" not in err


@pytest.mark.usefixtures("_known_speed")
@pytest.mark.parametrize("texts", [".", "stories.jsonl"])
def test_a_run_is_not_made_of_the_folder_of_its_texts(call_tinyllm: Call, stories: Path, texts: str) -> None:
    code, _, err = call_tinyllm("fit", texts, "--minutes", "1", "-o", ".")
    assert code == 2
    assert ". holds the texts; choose another --out directory" in err
    assert sorted(Path().iterdir()) == [Path(stories.name)]


@pytest.mark.usefixtures("_known_speed")
def test_a_short_run_of_a_long_time_says_its_own_time(stories: Path) -> None:
    """The plan ends after 60 epochs, and not after the hour."""
    plan = tinyllm.fit(stories, "run", minutes=60, max_parameters=60_000, only_plan=True).plan
    assert plan.is_shortened
    assert plan.training_minutes == pytest.approx(plan.num_steps * 0.01 / 60)
    assert plan.training_minutes < 2


def interrupt(*_: object, **__: object) -> None:
    """Stops in place of training, as the loop does after Ctrl-C."""
    raise Interrupted("stopped at step 3 and saved", 2, hint="go on with `resume=True`")


@pytest.mark.usefixtures("_known_speed")
def test_a_stop_names_no_flag_that_fit_lacks(
    call_tinyllm: Call, stories: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "run_training", interrupt)
    code, _, err = call_tinyllm("fit", stories.name, "--minutes", "1", *SMALL, "-o", "run")
    assert code == 130
    assert err.endswith("stopped at step 3 and saved; the same again goes on from there\n")
    with pytest.raises(Interrupted, match="the same again goes on from there"):
        tinyllm.fit(stories, "run", minutes=1, max_parameters=60_000)


@pytest.mark.slow
@pytest.mark.usefixtures("_few_updates")
def test_a_byte_level_tokenizer_is_used(call_tinyllm: Call, stories: Path, tmp_path: Path) -> None:
    """SmolLM's kind: no text begins with BOS, yet the model writes from nothing at the end."""
    save_byte_level("smollm", tmp_path / "tok")
    command = ("fit", stories.name, "--minutes", "0.1", "--tokenizer", "tok", "--max-parameters", "30000", "-o", "run")
    code, out, err = call_tinyllm(*command)
    assert code == 0, err
    assert "bits per byte on held-out text" in out
    plan = tinyllm.fit(stories, "other", minutes=0.1, max_parameters=30_000, tokenizer="tok", only_plan=True).plan
    assert plan.vocabulary.size == load_tokenizer(tmp_path / "tok").vocab_size


def stop(*_: object, **__: object) -> None:
    """Stops in place of training, as Ctrl-C does."""
    raise KeyboardInterrupt


@pytest.mark.usefixtures("_known_speed")
def test_plan_is_printed_and_nothing_is_written(call_tinyllm: Call, stories: Path) -> None:
    code, out, err = call_tinyllm("fit", stories.name, "--plan", "--minutes", "1", *SMALL)
    assert code == 0, err
    for name in ("corpus", "vocabulary", "parameters", "learning rate", "updates", "expected"):
        assert name in out
    assert sorted(path.name for path in Path().iterdir()) == [stories.name]


@pytest.mark.usefixtures("_known_speed")
def test_a_time_too_short_for_a_model_says_how_long_training_takes(
    call_tinyllm: Call, stories: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "measure_update_seconds", lambda *_, **__: 6.0)
    code, out, err = call_tinyllm("fit", stories.name, "--plan", "--minutes", "1", *SMALL)
    assert code == 0, err
    assert "training takes 5 minutes for 50 updates" in err
    assert "50" in next(line for line in out.splitlines() if line.startswith("│ updates"))
    assert "bits per byte or more" in " ".join(out.replace("│", " ").split())


@pytest.mark.parametrize("option", [("--plan",), ("-o", "run")])
def test_a_text_of_a_few_words_is_refused_before_anything_is_measured(
    call_tinyllm: Call, monkeypatch: pytest.MonkeyPatch, option: tuple[str]
) -> None:
    monkeypatch.setattr(stages, "measure_speed", lambda: pytest.fail("the machine was measured"))
    Path("hello.txt").write_text("Hello world, said the cat.", encoding="utf-8")
    code, out, err = call_tinyllm("fit", "hello.txt", "--minutes", "1", *option)
    assert (code, out) == (1, "")
    assert "the corpus is too small to learn from: 26 bytes" in err
    assert not Path("run").exists()


@pytest.mark.usefixtures("_known_speed")
def test_text_that_is_read_many_times_is_said_to_be_memorized(call_tinyllm: Call) -> None:
    Path("small.txt").write_text("The cat sat on the mat and ate. " * 70, encoding="utf-8")
    code, _, err = call_tinyllm("fit", "small.txt", "--plan", "--minutes", "5")
    assert code == 0, err
    assert "times: the model will memorize them" in err


def test_a_machine_that_is_faster_than_it_seemed_gets_dropout_too(
    stories: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The corpus seems to be read a few times; the measured updates read it often."""
    measured: list[float] = []

    def seconds(config: Config, *_: object, **__: object) -> float:
        measured.append(config.model.dropout)
        return 0.004 if config.model.dropout else 0.002

    monkeypatch.setattr(stages, "measure_speed", lambda: Speed(0.1, 1e11))
    monkeypatch.setattr(stages, "measure_update_seconds", seconds)
    plan = stages.plan_run(stages.Corpus([stories]), Limits(60.0, 60_000), None, FitReporter()).plan
    assert measured == [0.0, 0.1]
    assert (plan.model.dropout, plan.update_seconds) == (0.1, 0.004)


@pytest.mark.usefixtures("_known_speed")
def test_other_wishes_for_the_same_folder_are_refused(call_tinyllm: Call, stories: Path) -> None:
    corpus = stages.Corpus([stories])
    limits = Limits(9.0, 60_000)
    fitted = stages.plan_run(corpus, limits, None, FitReporter())
    stages.keep_plan(Path("run"), fitted, corpus, limits, None)
    before = Path("run/plan.json").read_bytes()
    code, _, err = call_tinyllm("fit", stories.name, "--minutes", "3", *SMALL, "-o", "run")
    assert code != 0
    assert "run holds a run that began with other time; give the same again, or choose another --out" in err
    assert Path("run/plan.json").read_bytes() == before


def test_foreign_folder_is_refused_before_anything_is_measured(call_tinyllm: Call, stories: Path) -> None:
    Path("run").mkdir()
    Path("run/plan.json").write_text('{"mine": true}', encoding="utf-8")
    code, _, err = call_tinyllm("fit", stories.name, "-o", "run")
    assert code != 0
    assert "is not a plan of tinyllm" in err
    assert Path("run/plan.json").read_text(encoding="utf-8") == '{"mine": true}'


def test_damaged_plan_is_named(call_tinyllm: Call, stories: Path) -> None:
    corpus, limits = stages.Corpus([stories.name]), Limits(600.0)
    record = {"kind": FIT_KIND, "request": stages.request_of(corpus, limits, None), "plan": {}}
    Path("run").mkdir()
    Path("run/plan.json").write_text(json.dumps(record), encoding="utf-8")
    code, _, err = call_tinyllm("fit", stories.name, "-o", "run")
    assert code != 0
    assert "plan.json is damaged" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--minutes", "0"), "--minutes is 0"),
        (("--minutes", "-3"), "--minutes is -3"),
        (("--hours", "1e9"), "--hours is"),
        (("--minutes", "nan"), "--minutes is nan"),
        (("--minutes", "5", "--hours", "1"), "give one"),
        (("--max-file-size", "big"), "--max-file-size is 'big'; it should be a size such as 5MB"),
        (("--max-file-size", "9" * 400), "it should be a size such as 5MB"),
        (("--max-parameters", "10"), "no model fits the limits"),
        (("--max-file-size", "1KB"), "no model fits the limits"),
    ],
)
@pytest.mark.usefixtures("_known_speed")
def test_impossible_wishes_are_one_line(call_tinyllm: Call, stories: Path, options: tuple[str], message: str) -> None:
    code, _, err = call_tinyllm("fit", stories.name, "-o", "run", *options)
    assert code != 0
    assert message in err
    assert "Traceback" not in err
    assert not Path("run").exists()


def test_standard_input_is_refused(call_tinyllm: Call) -> None:
    code, _, err = call_tinyllm("fit", "-", stdin="A text.")
    assert code != 0
    assert "standard input can be read once; name a file" in err


@pytest.mark.usefixtures("_known_speed")
def test_python_has_the_same_plan_without_writing(stories: Path, tmp_path: Path) -> None:
    fit = api.fit(stories, tmp_path / "run", minutes=0.5, max_parameters=60_000, only_plan=True)
    assert fit.outcome is None
    assert fit.plan.num_steps >= 1
    assert not (tmp_path / "run").exists()
    with pytest.raises(UsageError, match="no model fits the limits"):
        api.fit(stories, tmp_path / "run", minutes=0.5, max_parameters=10, only_plan=True)
