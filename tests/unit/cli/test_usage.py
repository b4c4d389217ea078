"""The options nearest to a wrong one: by spelling, words, initials and help."""

import pytest

from tinyllm.cli.usage import Option, ScriptParser, near_options
from tinyllm.errors import ArgumentsError

OPTIONS = [
    Option(("--max-new-tokens",), "Tokens to generate at most."),
    Option(("--num-samples",), "Texts to generate."),
    Option(("--stream", "--no-stream"), "Write the text as it comes."),
    Option(("--output", "-o"), "File to write."),
    Option(("--to",), "Format: gguf or pt."),
]


@pytest.mark.parametrize(
    ("typed", "near"),
    [
        ("--max_new_tokens", ["--max-new-tokens"]),
        ("--num-sample", ["--num-samples"]),
        ("--tokens", ["--max-new-tokens"]),
        ("--samples-count", ["--num-samples"]),
        ("-n", ["--num-samples", "--max-new-tokens"]),
        ("-s", ["--stream", "--num-samples"]),
        ("--format", ["--to"]),
        ("--zzyzx", []),
        ("-x", []),
    ],
)
def test_near_options(typed: str, near: list[str]) -> None:
    assert near_options(typed, OPTIONS) == near


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["--learning_rat=3"], "unknown option --learning_rat; did you mean --learning_rate?"),
        (["--size", "x"], "argument --size: invalid int value: 'x'"),
        (["word"], "unexpected argument 'word': script.py takes options alone"),
        (["--size"], "argument --size: expected one argument"),
    ],
)
def test_a_script_names_the_wrong_word(tokens: list[str], message: str) -> None:
    parser = ScriptParser(prog="script.py", allow_abbrev=False)
    parser.add_argument("--learning_rate", type=float)
    parser.add_argument("--size", type=int)
    with pytest.raises(ArgumentsError) as caught:
        parser.parse_args(tokens)
    assert str(caught.value) == message
