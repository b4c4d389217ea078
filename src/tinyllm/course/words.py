"""Rewrites the command line's messages with the scripts' names: `--init_from=resume` for `--resume auto`, and so on.

A message names only flags of the script that prints it. `run_llama.py` has its own flags.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from tinyllm.cli.flags import in_flags
from tinyllm.errors import TinyllmError

CONSTANTS = {
    "model.vocab_size": "vocab_size",
    "model.hidden_size": "dim",
    "model.num_layers": "n_layers",
    "model.num_heads": "n_heads",
    "model.num_kv_heads": "n_kv_heads",
    "model.multiple_of": "multiple_of",
    "model.context_length": "max_seq_len",
    "model.dropout": "dropout",
    "training.batch_size": "batch_size",
    "training.accumulation_steps": "gradient_accumulation_steps",
    "training.sequence_length": "max_seq_len",
    "training.eval_interval": "eval_interval",
    "training.eval_batches": "eval_iters",
    "training.eval_only": "eval_only",
    "training.always_save_checkpoint": "always_save_checkpoint",
    "training.init_from": "init_from",
    "training.log_interval": "log_interval",
    "training.device": "device",
    "training.dtype": "dtype",
    "schedule.num_steps": "max_iters",
    "schedule.peak": "learning_rate",
    "schedule.warmup_steps": "warmup_iters",
    "optimizer.beta1": "beta1",
    "optimizer.beta2": "beta2",
    "optimizer.weight_decay": "weight_decay",
    "optimizer.grad_clip": "grad_clip",
}
"""Setting -> constant of train.py that sets it."""
FLAGS = {
    "without --recipe and other settings a run keeps its own": "without flags a run keeps its own settings",
    "--resume auto": "--init_from=resume",
    "--out": "--out_dir",
    "--vocab-size": "--vocab_size",
    "--text-key": "--text_key",
}
RUN_LLAMA_FLAGS = {
    "--device cuda": "--use_gpu",
    "use --device cpu or auto": "leave --use_gpu out",
}
_SHORT = {key.partition(".")[2]: name for key, name in CONSTANTS.items() if "_" in key}
"""Settings without their section; a name without an underscore could be an ordinary word."""


def in_script_words(message: str) -> str:
    """`message` with the tutorial's flags and constants in place of those of `tinyllm`."""
    message = with_flags(message, FLAGS)
    message = re.sub(r"\b[a-z]+\.[a-z_0-9]+\b", lambda match: CONSTANTS.get(match[0], match[0]), message)
    return re.sub(r"\b[a-z]+(_[a-z]+)+\b", lambda match: _SHORT.get(match[0], match[0]), message)


def with_flags(message: str, flags: Mapping[str, str]) -> str:
    """`message` with each key of `flags`, as a whole word, replaced by its value."""
    for own, script in flags.items():
        message = re.sub(rf"(?<![\w-]){re.escape(own)}(?![\w-])", script, message)
    return message


@contextmanager
def translated(translate: Callable[[str], str]) -> Iterator[None]:
    """Rewrites the messages of errors inside the block by `translate`."""
    try:
        yield
    except TinyllmError as error:
        error.reword(translate(in_flags(error)))
        raise
