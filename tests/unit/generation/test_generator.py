"""The front of generation against a reference without cache, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

import tinyllm
from tinyllm.config import ModelConfig, SamplingConfig
from tinyllm.errors import ConfigError, FormatError, InputError, ResourceError, UsageError
from tinyllm.generation import sampling
from tinyllm.generation.engines.protocol import Engine
from tinyllm.generation.engines.torch_engine import TorchEngine
from tinyllm.generation.generator import Generator
from tinyllm.generation.prompts import Prompt
from tinyllm.loading import load_with_torch as load
from tinyllm.model.transformer import Transformer
from tinyllm.tokenizer.codec import Tokenizer

PROMPT = "Once upon a time the fox"


@pytest.fixture
def generator(make_model_dir: Callable[..., Path]) -> Generator:
    """A random model with a context of 32 tokens."""
    return load(make_model_dir(), device="cpu")


def model_of(generator: Generator) -> Transformer:
    assert isinstance(generator.engine, TorchEngine)
    return generator.engine._model


def uncached(generator: Generator, prompt: str, config: SamplingConfig, sample: int = 0) -> list[int]:
    """The definition: a full forward pass for each token, over a window that halves when it is full."""
    context, tokenizer = generator.config.context_length, generator.tokenizer
    window, stream = tokenizer.encode(prompt, bos=True), sampling.random_stream(config.seed, sample)
    seen = np.zeros((1, tokenizer.vocab_size), bool)
    drawn: list[int] = []
    while len(drawn) < config.max_new_tokens:
        seen[0, window] = True
        with torch.no_grad():
            logits = model_of(generator)(torch.tensor([window]))[:, -1].numpy()
        for token, bias in config.logit_bias:
            logits[0, token] += bias
        for token in drawn:
            logits[0, token] -= config.frequency_penalty
        for token in set(drawn):
            logits[0, token] -= config.presence_penalty
        token = int(sampling.choose(logits, seen, np.array([stream.random()]), config)[0])
        drawn.append(token)
        if token in (tokenizer.bos_id, tokenizer.eos_id):
            break
        if len(window) == context:
            window = window[-(context // 2 - 1) :]
        window = [*window, token]
    return drawn


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("max_new_tokens", [10, 90])
def test_cached_text_is_that_of_full_forward_passes(generator: Generator, seed: int, max_new_tokens: int) -> None:
    """90 tokens after a prompt of 12 slide a window of 32 four times."""
    config = SamplingConfig(max_new_tokens=max_new_tokens, temperature=0.9, top_p=0.95, seed=seed)
    generation = generator.generate(PROMPT, sampling=config)[0]
    assert generation.token_ids == uncached(generator, PROMPT, config)
    assert generation.slid == (len(generation.token_ids) > 90 - 32)


def test_all_settings_together_are_those_of_full_forward_passes(generator: Generator) -> None:
    config = SamplingConfig(
        max_new_tokens=20, temperature=0.8, top_k=20, top_p=0.9, min_p=0.01, repetition_penalty=1.2, seed=11
    )
    assert generator.generate(PROMPT, sampling=config)[0].token_ids == uncached(generator, PROMPT, config)


def test_biases_and_penalties_are_those_of_full_forward_passes(generator: Generator) -> None:
    (common,) = generator.tokenizer.encode("ball")[-1:]
    config = SamplingConfig(
        max_new_tokens=60, presence_penalty=1.5, frequency_penalty=0.5, logit_bias=((common, 4), (301, -100)), seed=4
    )
    for sample, generation in enumerate(generator.generate(PROMPT, num_samples=3, sampling=config)):
        assert generation.token_ids == uncached(generator, PROMPT, config, sample)
        plain = generator.generate(PROMPT, num_samples=3, max_new_tokens=60, seed=4)[sample]
        assert generation.token_ids != plain.token_ids


def test_a_bias_changes_the_choice_and_not_the_log_probability(generator: Generator) -> None:
    """A token that is forced keeps the log-probability that the model gives it, as one that is scored."""
    prompt = generator.tokenizer.encode(PROMPT, bos=True)
    forced = generator.generate(prompt, max_new_tokens=3, logit_bias={290: 100})[0]
    assert forced.token_ids == [290] * 3
    with torch.no_grad():
        logits = model_of(generator)(torch.tensor([prompt + forced.token_ids]))
    expected = torch.log_softmax(logits[0, len(prompt) - 1 : -1], dim=-1)[:, 290]
    np.testing.assert_allclose(forced.log_probabilities, expected, rtol=1e-4, atol=1e-5)


def test_several_prompts_are_continued_in_one_batch_as_each_alone(generator: Generator) -> None:
    prompts: list[Prompt] = [
        PROMPT,
        generator.tokenizer.encode("the", bos=True),
        "",
        "a red ball saw the owl and the bear",
    ]
    settings: dict[str, Any] = {"max_new_tokens": 40, "seed": 8, "num_samples": 3}
    together = generator.generate(prompts, **settings)
    apart = [generation for prompt in prompts for generation in generator.generate(prompt, **settings)]
    assert [(each.prompt, each.text, each.token_ids, each.slid) for each in together] == [
        (each.prompt, each.text, each.token_ids, each.slid) for each in apart
    ]
    assert [each.prompt for each in together[::3]] == [PROMPT, "the", "", prompts[3]]


def test_the_same_seed_gives_the_same_text_alone_or_in_a_batch(generator: Generator) -> None:
    settings: dict[str, Any] = {"max_new_tokens": 60, "seed": 5, "temperature": 0.9}
    alone = generator.generate(PROMPT, **settings)[0]
    three, five = (generator.generate(PROMPT, num_samples=count, **settings) for count in (3, 5))
    assert alone.token_ids == three[0].token_ids
    assert [g.token_ids for g in three] == [g.token_ids for g in five[:3]]
    assert len({g.text for g in five}) == 5
    assert generator.generate(PROMPT, **{**settings, "seed": 6})[0].text != alone.text


def test_a_batch_continues_where_another_sample_has_ended(generator: Generator) -> None:
    """Each sample is what its own stream draws, whenever the others end."""
    config = SamplingConfig(max_new_tokens=12, stop=("a", "e", "o"), seed=2)
    for sample, generation in enumerate(generator.generate(PROMPT, num_samples=6, sampling=config)):
        expected = uncached(generator, PROMPT, config, sample)
        assert generation.token_ids == expected[: len(generation.token_ids)]


@pytest.mark.parametrize("seed", range(6))
def test_the_pieces_of_a_stream_are_the_text(generator: Generator, seed: int) -> None:
    settings: dict[str, Any] = {"max_new_tokens": 40, "seed": seed, "stop": ("xyz", "Once upon")}
    stream = generator.stream(PROMPT, **settings)
    pieces = list(stream)
    expected = generator.generate(PROMPT, **settings)[0]
    assert "".join(pieces) == expected.text == stream.generation.text
    assert stream.generation.token_ids == expected.token_ids
    assert "" not in pieces


def test_a_stream_gives_its_result_without_being_read(generator: Generator) -> None:
    assert len(generator.stream(PROMPT, max_new_tokens=5).generation.token_ids) == 5


class Scripted:
    """An engine for one text at a time that says the given tokens one after the other, whatever it reads."""

    def __init__(self, script: list[int], vocab_size: int) -> None:
        self.context_length = 1000
        self._script = iter(script)
        self._vocab_size = vocab_size

    def open(self, num_slots: int) -> list[int]:
        assert num_slots == 1
        return [0]

    def read(self, slots: list[int], tokens: list[np.ndarray]) -> np.ndarray:
        assert slots == [0]
        assert len(tokens) == 1
        logits = np.zeros((1, self._vocab_size), np.float32)
        logits[:, next(self._script)] = 50
        return logits

    def close(self, slots: list[int]) -> None:
        assert slots in ([], [0])

    choose = TorchEngine.choose

    def missing_bytes(self, num_slots: int, num_positions: int) -> int:
        return 0

    def available_bytes(self) -> int | None:
        return None


def say(tokenizer: Tokenizer, ids: list[int]) -> Generator:
    config = ModelConfig(vocab_size=tokenizer.vocab_size, hidden_size=8, num_heads=1, num_layers=1)
    return Generator(cast(Engine, Scripted(ids, tokenizer.vocab_size)), tokenizer, config)


def test_characters_of_several_byte_tokens_come_whole(tiny_tokenizer: Tokenizer) -> None:
    text = " 🦊 saw 月é"
    ids = tiny_tokenizer.encode("the" + text)[1:]
    pieces = list(say(tiny_tokenizer, ids).stream("the", max_new_tokens=len(ids)))
    assert "".join(pieces) == text
    assert "\ufffd" not in "".join(pieces)
    assert "🦊" in pieces


def test_bytes_that_never_become_a_character_are_shown_as_such_at_the_end(tiny_tokenizer: Tokenizer) -> None:
    ids = tiny_tokenizer.encode("the 🦊")[:-1]
    assert say(tiny_tokenizer, ids).generate("", max_new_tokens=len(ids))[0].text == "the \ufffd\ufffd\ufffd"


@pytest.mark.parametrize("end", ["bos_id", "eos_id"])
def test_bos_and_eos_end_a_text_and_are_no_part_of_it(tiny_tokenizer: Tokenizer, end: str) -> None:
    ids = [*tiny_tokenizer.encode("the fox"), getattr(tiny_tokenizer, end), *tiny_tokenizer.encode("bear")]
    generation = say(tiny_tokenizer, ids).generate("", max_new_tokens=50)[0]
    assert generation.text == "the fox"
    assert generation.finish_reason == "end"
    assert generation.token_ids == ids[: ids.index(getattr(tiny_tokenizer, end)) + 1]


def test_a_stop_string_across_tokens_is_cut_off(tiny_tokenizer: Tokenizer) -> None:
    ids = tiny_tokenizer.encode("the fox saw a red ball")
    stream = say(tiny_tokenizer, ids).stream("", max_new_tokens=50, stop=("x saw a r",))
    assert "".join(stream) == "the fo"
    assert stream.generation.finish_reason == "stop"


def test_text_that_only_began_like_a_stop_string_comes_in_the_end(tiny_tokenizer: Tokenizer) -> None:
    ids = tiny_tokenizer.encode("the fox")
    generation = say(tiny_tokenizer, ids).generate("", max_new_tokens=len(ids), stop=("fox!",))[0]
    assert generation.text == "the fox"
    assert generation.finish_reason == "length"


def test_log_probabilities_are_those_of_the_model_alone(generator: Generator) -> None:
    generation = generator.generate(PROMPT, max_new_tokens=10, temperature=0.5, top_k=5)[0]
    prompt = generator.tokenizer.encode(PROMPT, bos=True)
    with torch.no_grad():
        logits = model_of(generator)(torch.tensor([prompt + generation.token_ids]))
    expected = torch.log_softmax(logits[0, len(prompt) - 1 : -1], dim=-1)
    picked = expected[torch.arange(10), torch.tensor(generation.token_ids)]
    np.testing.assert_allclose(generation.log_probabilities, picked, rtol=1e-4, atol=1e-5)


def test_a_prompt_as_long_as_the_context_is_taken_and_one_token_more_is_not(generator: Generator) -> None:
    full = generator.tokenizer.decode(generator.tokenizer.encode("fox " * 40)[:31])
    assert len(generator.tokenizer.encode(full)) == 31
    generation = generator.generate(full, max_new_tokens=3)[0]
    assert len(generation.token_ids) == 3
    assert generation.slid
    with pytest.raises(InputError, match="the prompt has 33 tokens, but the model's context is 32"):
        generator.generate(generator.tokenizer.decode(generator.tokenizer.encode("fox " * 40)[:32]))


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (5, "prompt is 5; it should be a text, or a list of token ids"),
        (None, "prompt is None; it should be a text, or a list of token ids"),
        (b"the fox", "prompt is b'the fox'; it should be a text, or a list of token ids"),
        (["the fox", 5], r"prompt\[1\] is 5; a list of several has texts or lists of token ids alone"),
        ([5, "the fox"], r"prompt\[0\] is 5; a list of several has texts or lists of token ids alone"),
        (["the fox", [5, "a"]], r"prompt\[1\]\[1\] is 'a'; a list of several has"),
        (["the fox", b"a"], r"prompt\[1\] is b'a'; a list of several has"),
        ([1, b"a"], r"prompt\[1\] is b'a'; a token id is a whole number"),
        ([1, 2.5], r"prompt\[1\] is 2.5; a token id is a whole number"),
        ([1, None], r"prompt\[1\] is None; a token id is a whole number"),
    ],
)
@pytest.mark.parametrize("way", ["generate", "stream"])
def test_a_prompt_of_another_type_is_refused(generator: Generator, way: str, prompt: Any, message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        getattr(generator, way)(prompt)


def test_a_function_of_one_prompt_refuses_several(generator: Generator) -> None:
    for use in (generator.stream, generator.logits, generator.hidden_states):
        with pytest.raises(ConfigError, match="^(prompt|text) is a list of 2 texts; give one"):
            use(cast(str, ["the fox", "a bear"]))


def test_token_ids_may_be_integers_of_numpy_or_pytorch(generator: Generator) -> None:
    ids, settings = generator.tokenizer.encode(PROMPT, bos=True), SamplingConfig(max_new_tokens=3)
    expected = generator.generate(ids, sampling=settings)[0].token_ids
    for prompt in (list(np.array(ids)), list(torch.tensor(ids))):
        assert generator.generate(prompt, sampling=settings)[0].token_ids == expected


def test_a_number_of_samples_of_another_type_is_refused(generator: Generator) -> None:
    with pytest.raises(UsageError, match="num_samples is '3'; it should be a whole number"):
        generator.generate(PROMPT, num_samples=cast(int, "3"))


@pytest.mark.parametrize(("stop", "message"), [(["a", 5], r"stop\[1\] is 5"), (["a", ""], r"stop\[1\]: a stop string")])
def test_a_wrong_stop_string_is_named_by_its_place(generator: Generator, stop: list[Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        generator.generate(PROMPT, stop=stop)


def test_an_empty_prompt_begins_from_bos(generator: Generator) -> None:
    config = SamplingConfig(max_new_tokens=5, seed=3)
    assert generator.generate(sampling=config)[0].token_ids == uncached(generator, "", config)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -0.5}, "temperature is -0.5; it should be greater than or equal to 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_p": 0}, "top_p is 0; it should be greater than 0"),
        ({"top_p": 1.5}, "top_p is 1.5; it should be less than or equal to 1"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"top_k": -1}, "top_k is -1"),
        ({"min_p": 1}, "min_p is 1"),
        ({"seed": -1}, "seed is -1"),
        ({"repetition_penalty": 0}, "repetition_penalty is 0"),
        ({"presence_penalty": 2.1}, "presence_penalty is 2.1; it should be less than or equal to 2"),
        ({"frequency_penalty": -3}, "frequency_penalty is -3; it should be greater than or equal to -2"),
        ({"logit_bias": {5: 101}}, r"logit_bias\[0\]\[1\] is 101; it should be less than or equal to 100"),
        ({"logit_bias": {5: 1, -1: 1}}, r"logit_bias\[1\]\[0\] is -1; it should be greater than or equal to 0"),
        ({"logit_bias": [(5, 1), (6, 1), (5, 2)]}, "logit_bias: token 5 occurs twice"),
        ({"logit_bias": 5}, "logit_bias is 5; it should be a valid tuple"),
        ({"logit_bias": {320: 1}}, "logit_bias names token 320; the ids of this model are 0 to 319"),
        ({"heat": 1}, "there is no setting heat$"),
        ({"temperatur": 1}, r"there is no setting temperatur; did you mean temperature\?$"),
        ({"num_samples": 0}, "num_samples is 0"),
    ],
)
def test_a_setting_out_of_range_is_named(generator: Generator, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        generator.generate(PROMPT, **settings)


def test_memory_is_counted_for_all_prompts(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyllm.generation.engines.torch_engine.available_memory_bytes", lambda: 60_000)
    with pytest.raises(ResourceError, match="num_samples 1 of each of 9 prompts with a context of 32 tokens: "):
        generator.generate([PROMPT] * 9)
    assert generator.generate(PROMPT, max_new_tokens=2)


@pytest.mark.parametrize("count", [10**7, 10**30])
def test_samples_without_room_are_refused_with_the_bytes_they_need(
    generator: Generator, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr("tinyllm.machine.memory.available_memory_bytes", lambda: 4_000_000_000)
    monkeypatch.setattr("tinyllm.generation.engines.torch_engine.available_memory_bytes", lambda: 4_000_000_000)
    with pytest.raises(ResourceError, match=rf"num_samples {count} .* are needed, 4.0 GB .* are available; use fewer"):
        generator.generate(PROMPT, num_samples=count)


def test_representations_are_one_line(generator: Generator, make_model_dir: Callable[..., Path]) -> None:
    assert repr(generator) == f"<Generator {generator.path}, 0.0 M parameters, PyTorch engine on cpu, float32>"
    stream = generator.stream(PROMPT, max_new_tokens=3)
    assert repr(stream) == "<TextStream open, 0 tokens>"
    assert stream.generation
    assert repr(stream) == "<TextStream ended, 3 tokens>"


def test_one_stop_string_may_stand_alone(tiny_tokenizer: Tokenizer) -> None:
    ids = tiny_tokenizer.encode("the fox saw a red ball")
    assert say(tiny_tokenizer, ids).generate("", max_new_tokens=50, stop="x saw")[0].text == "the fo"


def test_settings_win_over_the_config_given_and_are_checked(generator: Generator) -> None:
    config = SamplingConfig(max_new_tokens=3)
    assert len(generator.generate(PROMPT, sampling=config, max_new_tokens=4)[0].token_ids) == 4
    with pytest.raises(ConfigError, match="top_p is 2"):
        generator.stream(PROMPT, sampling=config, top_p=2)


def test_weights_that_are_not_numbers_are_an_error_not_a_text(generator: Generator) -> None:
    with torch.no_grad():
        model_of(generator).model.norm.weight.fill_(float("nan"))
    with pytest.raises(FormatError, match="not finite"):
        generator.generate(PROMPT)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_device_that_is_not_here_is_refused(make_model_dir: Callable[..., Path]) -> None:
    with pytest.raises(UsageError, match=r"device cuda: this machine .* has none"):
        load(make_model_dir(), device="cuda")


def test_an_unknown_dtype_is_refused(make_model_dir: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match="dtype is int8; it can be float32"):
        load(make_model_dir(), dtype="int8")


def test_bfloat16_weights_generate(make_model_dir: Callable[..., Path]) -> None:
    assert len(load(make_model_dir(), device="cpu", dtype="bfloat16").generate(PROMPT, max_new_tokens=5)) == 1


def test_the_public_name_loads_it(make_model_dir: Callable[..., Path]) -> None:
    assert isinstance(tinyllm.load(make_model_dir()), tinyllm.Generator)
