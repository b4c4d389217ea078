"""lm-evaluation-harness gets the same figures from tinyllm's adapter and from its own backend for transformers.

The tasks are local files of `fixtures/lm_eval`; nothing is downloaded. The tests need the extra `eval`; the comparison
needs `accelerate` too, which that backend imports.
"""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import tinyllm
from reference_data import STORIES_260K, TESTS
from tinyllm.errors import ConfigError
from tinyllm.exchange.write import export_model
from tinyllm.loading import read_model

lm_eval = pytest.importorskip("lm_eval")
pytest.importorskip("accelerate")

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # of lm-eval and the libraries that it loads
]
FOLDER = TESTS / "fixtures" / "lm_eval"
TASKS = ("pairs", "last_words", "whole_texts")
Results = tuple[dict[str, dict[str, Any]], dict[str, list[dict[str, Any]]]]


@cache
def read_task(name: str) -> dict[str, Any]:
    """The config of a task, with the place of its file."""
    import yaml

    config: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    config["dataset_kwargs"]["data_files"] = str(FOLDER / config["dataset_kwargs"]["data_files"])
    return config


def run_tasks(model: Any) -> Results:
    """The metrics of each task, and what lm-eval logged of each document."""
    from lm_eval.tasks import TaskManager

    found = lm_eval.simple_evaluate(
        model, tasks=[dict(read_task(name)) for name in TASKS], task_manager=TaskManager(), bootstrap_iters=0
    )
    return found["results"], found["samples"]


@pytest.fixture(scope="module")
def stories_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """stories260K as a model directory, which transformers loads."""
    target = tmp_path_factory.mktemp("model") / "stories260K"
    export_model(read_model(STORIES_260K / "stories260K.bin"), "safetensors", target)
    return target


@pytest.fixture(autouse=True)
def _without_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")


@pytest.mark.slow
@pytest.mark.parametrize("add_bos_token", [True, False])
@pytest.mark.parametrize("name", ["bundled", "stories260K"])
def test_the_adapter_and_transformers_agree(
    name: str, add_bos_token: bool, stories_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backend takes every text for one that begins with BOS, because the tokenizer decodes BOS to nothing."""
    if add_bos_token:
        monkeypatch.setattr("lm_eval.models.huggingface.has_bos_prefix", lambda *_: False)
    from lm_eval.models.huggingface import HFLM

    from tinyllm.evaluation.harness import HarnessModel

    path = stories_dir if name == "stories260K" else tinyllm.load().path
    ours, our_samples = run_tasks(HarnessModel(path, device="cpu", add_bos_token=add_bos_token))
    backend = HFLM(str(path), device="cpu", dtype="float32", batch_size=4, add_bos_token=add_bos_token)
    theirs, their_samples = run_tasks(backend)
    assert len(ours) == len(TASKS)
    for task, metrics in ours.items():
        for metric, value in metrics.items():
            if isinstance(value, float):
                assert value == pytest.approx(theirs[task][metric], rel=1e-5, abs=1e-4), (task, metric)
    for task, samples in our_samples.items():
        for sample, other in zip(samples, their_samples[task], strict=True):
            for answer, expected in zip(flat(sample["resps"]), flat(other["resps"]), strict=True):
                assert answer == pytest.approx(expected, rel=1e-6, abs=1e-4), (task, sample["doc"])


def flat(answers: Any) -> list[float]:
    """The log-probabilities and flags of one document, in one list."""
    if isinstance(answers, list | tuple):
        return [each for answer in answers for each in flat(answer)]
    return [float(answers)]


@pytest.fixture
def bundled() -> Any:
    from tinyllm.evaluation.harness import HarnessModel

    return HarnessModel(device="cpu")


def request(*arguments: object) -> Any:
    from lm_eval.api.instance import Instance

    return Instance("loglikelihood", {}, arguments, 0)


def test_lm_eval_finds_the_adapter_by_its_name() -> None:
    from lm_eval.api.registry import get_model

    from tinyllm.evaluation.harness import HarnessModel

    assert get_model("tinyllm") is HarnessModel
    assert isinstance(HarnessModel.create_from_arg_string("device=cpu", {"batch_size": 1}), HarnessModel)


def test_a_text_without_context_follows_bos(bundled: Any) -> None:
    text = json.loads((FOLDER / "pairs.jsonl").read_text(encoding="utf-8").splitlines()[0])["sentence_good"]
    ((log_probability, _),) = bundled.loglikelihood([request("", text)])
    assert log_probability == pytest.approx(tinyllm.load(device="cpu").score(text).log_probability, abs=1e-4)


def test_generation_stops_and_takes_the_task_settings(bundled: Any) -> None:
    prompt = "Once upon a time there was a"
    (text,) = bundled.generate_until([request(prompt, {"until": "named", "max_gen_toks": 30})])
    assert text
    assert "named" not in text
    whole = tinyllm.load(device="cpu").generate(prompt, temperature=0, max_new_tokens=30)[0].text
    assert whole.startswith(text + "named")
    (long,) = bundled.generate_until([request(prompt * 200, {"max_gen_toks": 5, "do_sample": False, "temperature": 1})])
    assert isinstance(long, str)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"max_gen_toks": 256}, "set a smaller max_gen_toks in the task"), ({"beams": 3}, "beams")],
)
def test_settings_that_cannot_be_had_are_named(bundled: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        bundled.generate_until([request("Once", settings)])


def test_cached_answers_are_told(bundled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[tuple[Any, ...]] = []
    add: Callable[..., None] = lambda *call: found.append(call)  # noqa: E731
    monkeypatch.setattr(bundled.cache_hook, "add_partial", add)
    bundled.loglikelihood([request("Once upon", " a time")])
    bundled.loglikelihood_rolling([request("Once upon a time")])
    assert [call[:2] for call in found] == [
        ("loglikelihood", ("Once upon", " a time")),
        ("loglikelihood_rolling", ("Once upon a time",)),
    ]
