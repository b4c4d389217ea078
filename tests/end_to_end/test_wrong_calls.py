"""Wrong command lines give one line with the wrong word, the nearest valid one, and the command's help."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tinyllm.cli.app import COMMANDS
from tinyllm.course import count_words_tokens, run_llama

Call = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("line", "message", "command"),
    [
        ("generate Once -n 5", "unknown option -n; did you mean --num-samples or --max-new-tokens?", "generate"),
        ("generate Once --format json", "unknown option --format; did you mean --json?", "generate"),
        ("generate Once --temprature 0", "unknown option --temprature; did you mean --temperature?", "generate"),
        ("generate Once --tokens 5", "unknown option --tokens; did you mean --max-new-tokens?", "generate"),
        ("generate a b c", "3 arguments are more than a model and a prompt", "generate"),
        ("generate Once --seed", "--seed needs a value", "generate"),
        ("generate Once --stop", "--stop needs a value", "generate"),
        ("generate --stop the Once", "no prompt: --stop took every text after it ('the', 'Once')", "generate"),
        ("info run extra", "unexpected argument 'extra': tinyllm info takes MODEL alone", "info"),
        ("info run --jsn", "unknown option --jsn; did you mean --json?", "info"),
        ("doctor run extra", "unexpected argument 'extra': tinyllm doctor takes PATH alone", "doctor"),
        ("demo extra", "unexpected argument 'extra': tinyllm demo takes options alone", "demo"),
        ("train shards --out x", "unexpected argument 'shards'", "train"),
        ("train shards --out x", "did you mean --data shards?", "train"),
        ("train --data", "--data needs a value", "train"),
        ("train --data x --out y --model 3", "--model is a section of settings; give them by name, such as", "train"),
        ("train --data x", "--out is missing (Run directory", "train"),
        ("train --data x --out y --hidden_size 3", "did you mean --model.hidden_size?", "train"),
        ("prepare s.txt --tokeniser tok -o x", "unknown option --tokeniser; did you mean --tokenizer?", "prepare"),
        ("export run --format gguf -o x", "unknown option --format; did you mean --to?", "export"),
        ("import run", "--output is missing (Model directory to write)", "import"),
        ("classify predict run", "SENTENCES is missing", "classify predict"),
        ("classify predict run --outptu x", "unknown option --outptu; did you mean --output?", "classify predict"),
        ("data storybook extra", "unexpected argument 'extra'", "data storybook"),
        ("tokenizer encode a b", "unexpected argument 'b': tinyllm tokenizer encode takes TEXT", "tokenizer encode"),
        ("tokenizer encode tok -", "unexpected argument '-': tinyllm tokenizer encode takes TEXT", "tokenizer encode"),
        ("tokenizer encode --boss hi", "unknown option --boss", "tokenizer encode"),
        ("tokenizer encode", "give a text to encode", "tokenizer encode"),
        ("tokenizer decode -x", "unknown option -x", "tokenizer decode"),
        ("tokenizer count --tok x", "unknown option --tok; did you mean --tokenizer?", "tokenizer count"),
        ("serve --port 80.7", "Invalid value for --port: 80.7 is not a whole number", "serve"),
        ("prepare x -o y --tokenizer z --task 0.5", "--task: 0.5 is not a whole number", "prepare"),
        ("serve --port abc", 'Invalid value for --port: unable to convert "abc" into int', "serve"),
        ("tokenizer enc x", 'Unknown command "enc". Did you mean "encode"?', "tokenizer"),
        ("generte x", 'Unknown command "generte". Did you mean "generate"?', ""),
        ("--verison", "unknown option --verison; did you mean --version?", ""),
    ],
)
def test_a_wrong_word_is_named(line: str, message: str, command: str, call_tinyllm: Call) -> None:
    code, out, err = call_tinyllm(*line.split())
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert err.endswith(f"(see {' '.join(['tinyllm', *command.split()])} --help)\n")


@pytest.mark.parametrize("line", ["tokenizer encode a TEXT", "info TEXT", "train --data TEXT --out x", "x --o=TEXT"])
def test_a_long_argument_is_not_repeated_whole(line: str, call_tinyllm: Call) -> None:
    text = "Once upon a time\n" * 1000
    code, out, err = call_tinyllm(*(word.replace("TEXT", text) for word in line.split()))
    assert (code, out) in ((1, ""), (2, ""))
    assert len(err) < 500


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_names_an_unknown_option_first(command: str, call_tinyllm: Call) -> None:
    """Holds if other arguments are missing too, and if free-text arguments could consume the option."""
    code, _, err = call_tinyllm(*command.split(), "--zzyzx", "5")
    assert (code, err) == (2, f"tinyllm: unknown option --zzyzx (see tinyllm {command} --help)\n")


@pytest.mark.parametrize(
    ("arguments", "message", "command"),
    [
        (["a", "b"], "unexpected argument 'b'", "count_words_tokens.py"),
        (["--tokeniser", "x"], "unknown option --tokeniser; did you mean --tokenizer?", "count_words_tokens.py"),
        (["a", "--file", "x"], "give a text or --file, not both", "count_words_tokens.py"),
        (["--option", "generat"], "did you mean generate?", "run_llama.py"),
        (["--option", "generate", "-n", "5"], "did you mean --max-new-tokens?", "run_llama.py --option generate"),
        (["--option=prompt", "hi"], "unexpected argument 'hi'", "run_llama.py --option prompt"),
        (["--option", "finetune", "--learning_rate", "3"], "did you mean --lr?", "run_llama.py --option finetune"),
    ],
)
def test_scripts_name_it_too(
    arguments: list[str], message: str, command: str, in_empty_folder: Callable[..., Call]
) -> None:
    program = count_words_tokens if command == "count_words_tokens.py" else run_llama
    code, out, err = in_empty_folder(program.main)(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert err.endswith(f"(see python {command} --help)\n")


def test_several_stops_may_follow_one_option(call_tinyllm: Call, make_model_dir: Callable[..., Path]) -> None:
    flags = (make_model_dir(), "the", "--temperature", 0, "--max-new-tokens", 12)
    whole = call_tinyllm("generate", *flags)[1]
    apart, together = whole[6:8], whole[10:12]
    one = call_tinyllm("generate", *flags, "--stop", apart, "--stop", together)
    assert one[0] == 0
    assert call_tinyllm("generate", *flags, "--stop", apart, together)[1] == one[1]
    assert len(one[1]) < len(whole)
