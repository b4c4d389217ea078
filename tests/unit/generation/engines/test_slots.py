"""Slots of both engines: a text is the same alone, in a batch, and beside texts that come and go."""

from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
import torch

from tinyllm.config import ModelConfig, SamplingConfig, WeightsKind
from tinyllm.errors import FormatError
from tinyllm.generation.engines.cpu_engine import CpuEngine
from tinyllm.generation.engines.protocol import Engine, Logits, Tokens
from tinyllm.generation.engines.slots import SlotTable
from tinyllm.generation.engines.torch_engine import TorchEngine
from tinyllm.kernels.decode.cache import Kernels
from tinyllm.kernels.decode.weights import PackedWeights
from tinyllm.model.transformer import Transformer

CONTEXT, VOCABULARY = 70, 203
TOLERANCES = {
    "cpu fp32": 0,
    "cpu bf16": 0,
    "cpu int8": 2e-3,
    "torch float32": 2e-5,
    "torch bfloat16": 0.1,
}
"""Largest difference between the logits, around 1, of a text alone and beside others: none for float weights."""
Floats = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def model() -> Transformer:
    torch.manual_seed(1)
    shape: dict[str, Any] = {
        "hidden_size": 64,
        "num_layers": 2,
        "num_heads": 8,
        "num_kv_heads": 4,
        "intermediate_size": 172,
    }
    model = Transformer(ModelConfig(vocab_size=VOCABULARY, context_length=CONTEXT, **shape)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.rand_like(parameter) + 0.5 if "norm" in name else parameter * 6)
    return model


MakeEngine = Callable[[], Engine]


@pytest.fixture(params=TOLERANCES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make_engine(kind: str, model: Transformer, compiled_kernels: Callable[[WeightsKind], Kernels]) -> MakeEngine:
    return engine_maker(kind, model, compiled_kernels)


def engine_maker(kind: str, model: Transformer, compiled_kernels: Callable[[WeightsKind], Kernels]) -> MakeEngine:
    engine, precision = kind.split()
    tensors = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}

    def make() -> Engine:
        if engine == "torch":
            copy = Transformer(model.config)
            copy.load_state_dict(model.state_dict())
            return TorchEngine(copy.to(getattr(torch, precision)))
        (weights,) = (kind for kind in get_args(WeightsKind) if kind == precision)
        packed = PackedWeights(model.config, tensors, weights)
        return CpuEngine(model.config, packed, compiled_kernels(weights), num_threads=2)

    return make


def texts(*lengths: int) -> list[Tokens]:
    random = np.random.default_rng(sum(lengths))
    return [random.integers(0, VOCABULARY, length) for length in lengths]


def alone(make_engine: MakeEngine, text: Tokens, prompt_length: int) -> list[Floats]:
    """Logits (V,) after the first `prompt_length` tokens, read at once, and after each later one, in a fresh engine."""
    engine = make_engine()
    slots = engine.open(1)
    parts = np.split(text, range(prompt_length, len(text)))
    return [engine.read(slots, [part])[0].copy() for part in parts]


def check(kind: str, actual: Logits | list[Floats], expected: Logits | list[Floats]) -> None:
    assert np.std(expected) > 0.5  # the comparison is of real numbers
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCES[kind])


def test_texts_of_different_lengths_side_by_side(kind: str, make_engine: MakeEngine) -> None:
    """12 texts, enough for tiles of rows, with prompts of 1 to 56 tokens; the last fills the context."""
    prompts = [1 + 5 * number for number in range(12)]
    whole = texts(*(length + 14 for length in prompts))
    engine = make_engine()
    slots = engine.open(12)
    logits = [engine.read(slots, [text[:length] for text, length in zip(whole, prompts, strict=True)]).copy()]
    for step in range(14):
        tokens = np.array([text[length + step] for text, length in zip(whole, prompts, strict=True)])
        logits.append(engine.read(slots, tokens[:, None]).copy())
    assert [engine.length(slot) for slot in slots] == [length + 14 for length in prompts]
    for number, (text, length) in enumerate(zip(whole, prompts, strict=True)):
        check(kind, [step[number] for step in logits], alone(make_engine, text, length))


def test_a_text_beside_texts_that_join_and_leave(kind: str, make_engine: MakeEngine) -> None:
    """In each step other texts are opened, read beside the text in any order, or closed: 1 to 18 rows."""
    (text, other), engine = texts(60, 60), make_engine()
    expected = alone(make_engine, text, 7)
    random = np.random.default_rng(0)
    (slot,) = engine.open(1)
    check(kind, engine.read([slot], [text[:7]])[0], expected[0])
    others: list[int] = []
    for step in range(7, 60):
        if step % 5 == 0:
            others += engine.open(int(random.integers(1, 8)))
        if step % 7 == 0 or len(others) > 17:
            engine.close([others.pop(int(random.integers(len(others)))) for _ in range(len(others) * 2 // 3)])
        order = [int(place) for place in random.permutation(len(others) + 1)]
        slots = [[slot, *others][place] for place in order]
        tokens = [[text[step : step + 1], *([other[:1]] * len(others))][place] for place in order]
        if others and engine.length(others[0]) < 20:
            tokens[order.index(1)] = other[: 1 + step % 4]  # others may read several tokens in the same call
        check(kind, engine.read(slots, tokens)[order.index(0)], expected[step - 6])


def test_a_prompt_is_the_same_however_it_is_cut(kind: str, make_engine: MakeEngine) -> None:
    """In one piece, or in pieces of 1 to 40 tokens beside the next tokens of other texts."""
    (text, other), engine = texts(66, 66), make_engine()
    expected = alone(make_engine, text, 66)[0]
    for cuts in ([1, 2, 3, 66], [5, 37, 66], [33, 34, 64, 66], [26, 66]):
        slot, *others = slots = engine.open(1 + len(cuts))
        for step, (first, last) in enumerate(zip([0, *cuts], cuts, strict=False)):
            tokens = [text[first:last], *([other[step : step + 1]] * len(others))]
            logits = engine.read([*others, slot], [*tokens[1:], tokens[0]])[-1].copy()
        check(kind, logits, expected)
        engine.close(slots)


def test_a_fork_continues_the_text_and_shares_nothing(kind: str, make_engine: MakeEngine) -> None:
    whole, engine = texts(40, 40, 40), make_engine()
    prompt = whole[0][:33]  # one position more than a block of the cache
    (slot,) = engine.open(1)
    engine.read([slot], [prompt])
    slots = [slot, *engine.fork(slot, 2)]
    for row in (2, 0, 1):
        assert engine.length(slots[row]) == 33
        expected = alone(make_engine, np.concatenate((prompt, whole[row][33:])), 33)
        actual = [engine.read([slots[row]], [whole[row][step : step + 1]])[0].copy() for step in range(33, 40)]
        check(kind, actual, expected[1:])


@pytest.mark.parametrize("length", [1, 31, 32, 33, 40])
def test_a_fork_of_the_first_tokens_continues_as_a_text_that_read_only_those(
    kind: str, make_engine: MakeEngine, length: int
) -> None:
    (whole, other), engine = texts(40, 60 - length), make_engine()
    (slot,) = engine.open(1)
    engine.read([slot], [whole])
    (copy,) = engine.fork(slot, length=length)
    assert (engine.length(slot), engine.length(copy)) == (40, length)
    expected = alone(make_engine, np.concatenate((whole[:length], other)), length)[1:]
    actual = [engine.read([copy], [other[step : step + 1]])[0].copy() for step in range(len(other))]
    check(kind, actual, expected)
    check(kind, engine.read([slot], [other[:1]])[0], alone(make_engine, np.append(whole, other[0]), 40)[1])


def test_a_closed_slot_is_reused_without_a_trace(kind: str, make_engine: MakeEngine) -> None:
    first, second = texts(65, 9)
    engine = make_engine()
    slots = engine.open(3)
    engine.read(slots, [first, first[:40], first[:2]])
    engine.close(slots[:1])
    assert engine.missing_bytes(1, 9) < engine.missing_bytes(2, 9)
    assert engine.open(1) == slots[:1]
    assert engine.length(slots[0]) == 0
    check(kind, engine.read(slots[:1], [second])[0], alone(make_engine, second, 9)[0])


@pytest.mark.parametrize("kind", ["cpu fp32", "torch float32"])
def test_logits_are_those_of_the_model(kind: str, make_engine: MakeEngine, model: Transformer) -> None:
    prompts, engine = texts(3, 50, 17), make_engine()
    logits = engine.read(engine.open(3), prompts)
    with torch.inference_mode():
        expected = [model(torch.from_numpy(prompt)[None])[0, -1].numpy() for prompt in prompts]
    np.testing.assert_allclose(logits, expected, rtol=2e-5, atol=2e-5)


def test_calls_that_make_no_sense_are_refused_before_reading(make_engine: MakeEngine) -> None:
    engine, (text,) = make_engine(), texts(70)
    slots = engine.open(2)
    engine.read(slots[:1], [text[:69]])
    for bad, tokens, message in (
        ([slots[0]], [text[:2]], "slot 0 holds 69 tokens and reads 2 more; .* at most 70 fit together"),
        ([slots[1]], [text[:0]], "slot 1 holds 0 tokens and reads 0 more; at least 1 is needed"),
        ([7], [text[:1]], "slot 7 is not open"),
        ([-1], [text[:1]], "slot -1 is not open"),
        ([0, 7], [text[:1]] * 2, "slot 7 is not open"),
        ([0, 0], [text[:1]] * 2, r"2 texts are read into slots \[0, 0\]; each text needs its own slot"),
        ([0, 1], [text[:1]], r"1 texts are read into slots \[0, 1\]"),
        ([1], [np.array([VOCABULARY])], "token 203 is not one of the 203 ids"),
        ([1], [np.array([-1])], "token -1 is not one of the 203 ids"),
        ([0, 1], [text[:1], np.array([3, 2**40])], f"token {2**40} is not one of the 203 ids"),
        ([0, 1], np.array([[1], [-7]]), "token -7 is not one of the 203 ids"),
    ):
        with pytest.raises(ValueError, match=message):
            engine.read(bad, tokens)
    engine.close(slots[1:])
    for use in (lambda: engine.close([1]), lambda: engine.fork(1), lambda: engine.length(1)):
        with pytest.raises(ValueError, match="slot 1 is not open"):
            use()
    for length in (-1, 70):
        with pytest.raises(ValueError, match=f"slot 0 holds 69 tokens; its first {length} cannot be copied"):
            engine.fork(0, 1, length)
    assert engine.length(engine.fork(0, 1, 0)[0]) == 0
    engine.close([1])
    for wrong, message in (([0, 0], "one occurs twice"), ([0, 9], "slot 9 is not open")):
        with pytest.raises(ValueError, match=message):
            engine.close(wrong)
    with pytest.raises(ValueError, match="number of slots to open is -1"):
        engine.open(-1)
    with pytest.raises(ValueError, match="number of slots to open is -1"):
        engine.fork(0, -1)
    assert engine.length(0) == 69


def test_whole_texts_that_make_no_sense_are_refused(make_engine: MakeEngine) -> None:
    engine, (text,) = make_engine(), texts(9)
    calls: list[tuple[Callable[[], object], str]] = [
        (lambda: engine.read_logits([]), "there is no text to read"),
        (lambda: engine.read_logits([text, text[:0]]), "one of the texts is empty"),
        (lambda: engine.read_logits([text, np.array([VOCABULARY])]), "token 203 is not one of"),
        (lambda: engine.read_states(text[:0], [0]), "one of the texts is empty"),
        (lambda: engine.read_states(np.array([-1]), [0]), "token -1 is not one of"),
        (lambda: engine.read_states(text, [3]), "layer 3 is not from 0, the embedding, to 2"),
        (lambda: engine.read_states(text, [1, -1]), "layer -1 is not from 0"),
    ]
    for read, message in calls:
        with pytest.raises(ValueError, match=message):
            read()
    assert engine.missing_bytes(1, 9) == make_engine().missing_bytes(1, 9)


def test_logits_after_each_token_are_those_of_pieces(kind: str, make_engine: MakeEngine) -> None:
    """`read_each` gives what `read` gives after each of the tokens, and the slot goes on as after `read`."""
    (text, other), engine = texts(66, 66), make_engine()
    expected = alone(make_engine, text, 1)
    slot, beside = engine.open(2)
    engine.read([beside], [other[:20]])
    found = np.concatenate([engine.read_each(slot, text[first:last]) for first, last in ((0, 1), (1, 33), (33, 65))])
    for row, logits in enumerate(found):
        check(kind, logits, expected[row])
    check(kind, engine.read([beside, slot], [other[20:21], text[65:]])[1], expected[65])
    with pytest.raises(ValueError, match="not one of"):
        engine.read_each(beside, np.array([VOCABULARY]))
    with pytest.raises(ValueError, match="slot 7 is not open"):
        engine.read_each(7, text[:1])


@pytest.mark.parametrize("kind", ["cpu fp32", "cpu bf16", "torch float32"])
@pytest.mark.parametrize("reads_each", [False, True])
def test_numbers_that_are_not_finite_stay_in_their_text(
    kind: str, reads_each: bool, model: Transformer, compiled_kernels: Callable[[WeightsKind], Kernels]
) -> None:
    """The damaged embedding of one token must not reach the next text in the same slot, nor a text beside it."""
    damaged = Transformer(model.config.model_copy(update={"tie_embeddings": False}))
    damaged.load_state_dict(model.state_dict() | {"lm_head.weight": model.state_dict()["model.embed_tokens.weight"]})
    make = engine_maker(kind, damaged, compiled_kernels)
    (whole,) = texts(40)
    whole = np.where(whole == 5, 6, whole)
    expected = alone(make, whole, 9)
    with torch.no_grad():
        damaged.model.embed_tokens.weight[5] = torch.nan
    engine = make()
    slots, uniforms = engine.open(2), np.zeros(1)
    with pytest.raises(FormatError, match="not finite"):
        if reads_each:
            engine.read_each(slots[0], np.append(whole[:30], 5))
        logits = engine.read(slots[:1], [np.append(whole[:30], 5)])
        engine.choose(logits, np.zeros((1, VOCABULARY), np.bool_), uniforms, SamplingConfig())
    engine.close(slots[:1])
    assert engine.open(1) == slots[:1]
    engine.read(slots[1:], [whole[:20]])
    for row, end in enumerate(range(9, 41)):
        start = 0 if row == 0 else end - 1
        both = engine.read(slots, [whole[start:end], whole[20 + row % 20 : 21 + row % 20]])
        check(kind, both[0], expected[row])


def test_numbers_of_closed_slots_are_reused_lowest_first() -> None:
    table = SlotTable(context_length=8)
    table.add(table.num_missing(4))
    assert table.open(4) == [0, 1, 2, 3]
    table.advance([1, 2], np.array([5, 3]))
    table.close([3, 1, 2])
    assert (table.num_open, table.num_missing(5), table.free(2)) == (1, 2, [1, 2])
    assert table.longest == [0, 5, 3, 0]
    assert table.open(2, length=1) == [1, 2]
    assert table.starts([2, 0], np.array([7, 8])).tolist() == [1, 0]
