"""Writes the errors of the library in the words of the command line: `overwrite=True` becomes `--overwrite`.

Only the parameter and the hint of an error are translated (see `tinyllm.errors.TinyllmError`). The rest of a message
may hold names of files and is left as it is.
"""

import re

from tinyllm.errors import TinyllmError

FLAGS = {
    "batch_size": "--batch-size",
    "character_coverage": "--character-coverage",
    "config": "--config",
    "data": "--data",
    "device": "--device",
    "documents": "--documents",
    "dry_run": "--dry-run",
    "executor": "--executor",
    "filters": "--filter",
    "frequency_penalty": "--frequency-penalty",
    "label_names": "--label-names",
    "learning_rate": "--lr",
    "logit_bias": "--logit-bias",
    "max_bytes": "--max-bytes",
    "max_file_bytes": "--max-file-size",
    "max_new_tokens": "--max-new-tokens",
    "max_parameters": "--max-parameters",
    "max_sentence_len": "--max_sentence_len",
    "min_p": "--min-p",
    "num_samples": "--num-samples",
    "num_tasks": "--num-tasks",
    "num_workers": "--workers",
    "out": "--out",
    "output": "-o",
    "overwrite": "--overwrite",
    "presence_penalty": "--presence-penalty",
    "prompt": "--prompt",
    "question": "--question",
    "recipe": "--recipe",
    "repetition_penalty": "--repetition-penalty",
    "resume": "--resume",
    "shard_tokens": "--shard-tokens",
    "sha256": "--sha256",
    "slurm_partition": "--slurm-partition",
    "special": "--special",
    "target": "--to",
    "task": "--task",
    "text_key": "--text-key",
    "title": "--title",
    "tokenizer": "--tokenizer",
    "top_k": "--top-k",
    "top_p": "--top-p",
    "url": "--url",
    "validation_fraction": "--validation-fraction",
    "vocab_size": "--vocab-size",
    "with_modelfile": "--modelfile",
}
"""Parameter -> flag. The flag of a setting `section.key` is `--section.key`, that of an item `stop[0]` is `--stop`."""
VALUES = {"resume=True": "--resume auto"}
"""Arguments whose value has another word on the command line."""
CALLS = {
    "label_texts": "tinyllm classify predict",
    "prepare": "tinyllm prepare",
    "prepare_part": "tinyllm prepare",
    "train": "tinyllm train",
    "train_classifier": "tinyllm classify train",
    "train_tokenizer": "tinyllm tokenizer train",
}
"""Function -> command."""
_QUOTED = re.compile(r"`([^`]*)`")
_CALL = re.compile(r"(\w+)\((.*)\)", re.DOTALL)
_NEXT_ARGUMENT = re.compile(r", (?=[a-z_]+=)")
_SETTING = re.compile(r"[a-z]+\.[a-z_0-9]+")


def in_flags(error: TinyllmError) -> str:
    """The line of `error` with flags and commands in place of parameters and calls."""
    message = error.message
    if error.parameter:
        message = flag_of(error.parameter) + message.removeprefix(error.parameter)
    return f"{message}; {hint_in_flags(error.hint)}" if error.hint else message


def hint_in_flags(hint: str) -> str:
    """`hint` with flags and commands in place of the parameters and calls in backticks."""
    return _QUOTED.sub(_unquote, hint)


def flag_of(parameter: str) -> str:
    """The flag of a parameter, of an item of one, or of a setting `section.key`; only the latter has underscores."""
    name = parameter.partition("[")[0]
    return FLAGS.get(name, f"--{name if '.' in name else name.replace('_', '-')}")


def _unquote(quoted: re.Match[str]) -> str:
    """The flags or the command for one expression in backticks; any other stays, with its backticks."""
    call = _CALL.fullmatch(quoted[1])
    if call is None or call[1] not in CALLS:
        return _argument(quoted[1]) or quoted[0]
    arguments = [(_argument(each) if "=" in each else None) or each for each in _NEXT_ARGUMENT.split(call[2])]
    return " ".join([CALLS[call[1]], *arguments])


def _argument(expression: str) -> str | None:
    """`name` as its flag, `name=value` as flag and value, `name=True` as a switch; None if it is no parameter."""
    if expression in VALUES:
        return VALUES[expression]
    name, _, value = expression.partition("=")
    if name not in FLAGS and not _SETTING.fullmatch(name):
        return None
    return flag_of(name) if value in ("", "True") else f"{flag_of(name)} {value}"
