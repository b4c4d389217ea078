"""Tests the choice of a plan on invented surveys, speeds and laws, whose best choice is known."""

import dataclasses
import math

import pytest

from tinyllm.errors import InputError, UsageError
from tinyllm.model.size import num_parameters, weight_bytes
from tinyllm.planning.laws import Laws, measured_laws
from tinyllm.planning.plan import LEAST_TOKENS, Limits, Plan, check_size, choose_plan
from tinyllm.planning.reasons import explain, show_time, warnings
from tinyllm.planning.speed import Speed, solve
from tinyllm.planning.survey import Survey, Vocabulary

LARGE = Survey(100_000_000, 10_000, 80, 0, 2.0)
SMALL = Survey(20_000, 1, 60, 0, 2.0)
VOCABULARIES = [Vocabulary(512, 1.0, 2.0), Vocabulary(2048, 1.0, 3.4)]
SPEED = Speed(0.001, 2e11)


def test_more_time_gives_a_larger_model_and_a_lower_expected_loss() -> None:
    plans = [
        choose_plan(LARGE, VOCABULARIES, SPEED, measured_laws(), Limits(60.0 * minutes)) for minutes in (1, 10, 100)
    ]
    sizes = [num_parameters(plan.model) for plan in plans]
    losses = [plan.expected_bits_per_byte for plan in plans]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]
    assert losses == sorted(losses, reverse=True)


def test_faster_machine_gives_a_lower_expected_loss() -> None:
    slow, fast = (
        choose_plan(LARGE, VOCABULARIES, speed, measured_laws(), Limits(120.0))
        for speed in (SPEED, Speed(0.0001, 2e12))
    )
    assert fast.expected_bits_per_byte < slow.expected_bits_per_byte


def test_updates_fit_into_the_time() -> None:
    plan = choose_plan(LARGE, VOCABULARIES, SPEED, measured_laws(), Limits(300.0))
    num_tokens = plan.batch_size * plan.model.context_length
    assert plan.num_steps * SPEED.update_seconds(plan.model, num_tokens) <= 300
    assert plan.num_steps * SPEED.update_seconds(plan.model, num_tokens) > 200


@pytest.mark.parametrize(
    ("survey", "minutes", "optimizer"),
    [(LARGE, 0.1, "muon"), (LARGE, 10, "adamw"), (dataclasses.replace(LARGE, num_bytes=5_000_000), 10, "muon")],
    ids=["short", "long and fresh", "long and repeated"],
)
def test_a_long_run_over_fresh_text_trains_with_adamw(survey: Survey, minutes: float, optimizer: str) -> None:
    plan = choose_plan(survey, VOCABULARIES, SPEED, measured_laws(), Limits(60 * minutes))
    config = plan.config()
    assert plan.optimizer == config.optimizer.name == optimizer
    assert config.schedule.peak == (
        0.003 if optimizer == "adamw" else measured_laws().best_peak(num_parameters(plan.model))
    )


@pytest.mark.parametrize("most", [100_000, 300_000, 2_000_000])
def test_limits_of_parameters_and_of_the_file_hold(most: int) -> None:
    plan = choose_plan(LARGE, VOCABULARIES, SPEED, measured_laws(), Limits(6000.0, max_parameters=most))
    assert num_parameters(plan.model) <= most
    plan = choose_plan(LARGE, VOCABULARIES, SPEED, measured_laws(), Limits(6000.0, max_file_bytes=4 * most))
    assert weight_bytes(plan.model) < 4 * most


def test_limits_that_leave_no_model_are_refused_with_the_smallest_size() -> None:
    with pytest.raises(UsageError, match=r"no model fits the limits; the smallest .* has [\d,]+ parameters"):
        choose_plan(LARGE, VOCABULARIES, SPEED, measured_laws(), Limits(60.0, max_parameters=10))


def test_text_that_is_read_many_times_gets_dropout_and_a_warning() -> None:
    plan = choose_plan(SMALL, VOCABULARIES, SPEED, measured_laws(), Limits(600.0))
    assert plan.epochs > 30
    assert plan.model.dropout > 0
    (line,) = warnings(plan, SMALL)
    assert f"{plan.corpus_tokens:,} tokens, read {plan.epochs:,.0f} times: the model will memorize them" in line
    fresh = choose_plan(LARGE, VOCABULARIES, SPEED, measured_laws(), Limits(60.0))
    assert fresh.model.dropout == 0
    assert list(warnings(fresh, LARGE)) == []


def test_text_that_is_read_many_times_is_evaluated_often_and_may_end_early() -> None:
    repeated = choose_plan(SMALL, VOCABULARIES, SPEED, measured_laws(), Limits(600.0))
    training = repeated.config().training
    assert training.patience > 0
    assert repeated.num_steps // training.eval_interval >= 2 * training.patience
    assert "fewer if the validation loss stops falling" in dict_of(repeated, SMALL)["updates"]
    fresh = choose_plan(LARGE, VOCABULARIES, SPEED, measured_laws(), Limits(60.0))
    assert fresh.config().training.patience == 0
    assert "fewer" not in dict_of(fresh, LARGE)["updates"]


def dict_of(plan: Plan, facts: Survey) -> dict[str, str]:
    """Name of a row of the plan's table -> its reason."""
    return {name: reason for name, _, reason in explain(plan, facts)}


def test_a_vocabulary_of_rare_tokens_is_not_praised() -> None:
    assert "occurs often enough" in dict_of(choose(LARGE), LARGE)["vocabulary"]
    assert "a token occurs 18 times on average, too seldom" in dict_of(choose(SMALL), SMALL)["vocabulary"]


@pytest.mark.parametrize(
    ("num_bytes", "size"),
    [(40_000, 512), (120_000, 1024), (2_000_000, 8192), (100_000_000, 8192)],
    ids=["shorter than any needs", "short", "the covering one is enough", "long"],
)
def test_a_short_chinese_text_gets_a_vocabulary_whose_tokens_recur(num_bytes: int, size: int) -> None:
    vocabularies = [Vocabulary(512, 0.55, 1.6), Vocabulary(1024, 0.8, 2.2), Vocabulary(8192, 0.99, 4.2)]
    plan = choose(dataclasses.replace(LARGE, num_bytes=num_bytes, num_documents=300), vocabularies)
    assert plan.vocabulary.size == size
    limited = choose_plan(
        dataclasses.replace(LARGE, num_bytes=num_bytes),
        vocabularies,
        SPEED,
        measured_laws(),
        Limits(60.0, max_parameters=30_000),
    )
    assert limited.vocabulary.size <= 1024


def choose(facts: Survey, vocabularies: list[Vocabulary] = VOCABULARIES) -> Plan:
    return choose_plan(facts, vocabularies, SPEED, measured_laws(), Limits(60.0))


def test_a_corpus_of_a_few_tokens_is_refused_with_the_least_size() -> None:
    vocabulary = Vocabulary(300, 1.0, 1.5)
    check_size(Survey(int(LEAST_TOKENS * 1.5), 1, 20, 0, 3.0), vocabulary)
    with pytest.raises(InputError, match=r"too small to learn from: 30 bytes, about 20 tokens; .*, about 150 bytes"):
        check_size(Survey(30, 1, 20, 0, 3.0), vocabulary)


def test_no_text_is_expected_to_need_more_bits_than_it_has() -> None:
    assert measured_laws().bits_per_byte(20_000, 900, 1.0, 300.0) == 8


def test_repeated_documents_are_reported() -> None:
    plan = choose_plan(LARGE, VOCABULARIES, SPEED, measured_laws(), Limits(60.0))
    (line,) = warnings(plan, dataclasses.replace(LARGE, repeated_bytes=40_000_000))
    assert line.startswith("40% of the corpus is in documents that equal an earlier one")


def test_every_plan_is_a_valid_config_with_a_reason_for_each_number() -> None:
    for facts in (LARGE, SMALL, Survey(300, 1, 20, 0, 3.0)):
        plan = choose_plan(facts, VOCABULARIES, SPEED, measured_laws(), Limits(30.0))
        assert plan.config().schedule.num_steps == plan.num_steps
        assert all(value and reason for _, value, reason in explain(plan, facts))


def test_new_number_of_updates_changes_the_expected_result() -> None:
    laws = measured_laws()
    plan = choose_plan(LARGE, VOCABULARIES, SPEED, laws, Limits(60.0))
    shorter = plan.with_steps(plan.num_steps // 4, LARGE, laws)
    assert shorter.expected_bits_per_byte > plan.expected_bits_per_byte
    assert plan.with_steps(plan.num_steps, LARGE, laws) == plan


def test_repeated_text_is_worth_less_and_at_most_a_limit() -> None:
    laws = dataclasses.replace(measured_laws(), epochs=5.0)
    assert laws.effective_bytes(900, 1000) == 900
    assert laws.effective_bytes(2000, 1000) == pytest.approx(1000 * (1 + 5 * (1 - math.exp(-0.2))))
    assert laws.effective_bytes(10**9, 1000) == pytest.approx(6000)


def test_law_is_the_sum_of_its_terms() -> None:
    laws = Laws(0.1, 2.0, -1.0, 1e5, 0.5, 1e6, 0.25, 6.0, 0.01, 0.5)
    expected = 0.1 * 3.0**2 + ((1e5 / 4e5) ** 0.5 + (1e6 / 16e6) ** 0.25) / 3.0
    assert laws.bits_per_byte(4e5, 16e6, 1e9, 3.0) == pytest.approx(expected)
    assert laws.bits_per_byte(1.0, 1.0, 1e9, 3.0) == pytest.approx(3.75)
    assert laws.best_peak(4e6) == pytest.approx(0.005)


def test_speed_solves_two_measurements() -> None:
    speed = Speed(0.002, 1e11)
    measured = [(layers, flops, layers * 0.002 + flops / 1e11) for layers, flops in ((4, 1e9), (6, 5e10))]
    solved = solve(*measured)
    assert solved.layer_seconds == pytest.approx(speed.layer_seconds)
    assert solved.flops_per_second == pytest.approx(speed.flops_per_second)


def test_speed_of_contradictory_measurements_has_no_fixed_cost() -> None:
    assert solve((4, 1e9, 0.01), (6, 5e10, 5.0)) == Speed(0.0, 1e10)


@pytest.mark.parametrize(("seconds", "text"), [(30, "30 seconds"), (600, "10 minutes"), (7200, "2.0 hours")])
def test_times_are_shown_in_words(seconds: float, text: str) -> None:
    assert show_time(seconds) == text
