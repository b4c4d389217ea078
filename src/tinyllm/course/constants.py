"""The constants of the tutorial's train.py, and the settings that they mean."""

from collections.abc import Mapping
from typing import Any

from tinyllm.config import Config
from tinyllm.config.layers import config_for_shards

TRAIN_CONSTANTS: dict[str, Any] = {
    "out_dir": "output",
    "eval_interval": 2000,
    "log_interval": 1,
    "eval_iters": 100,
    "eval_only": False,
    "always_save_checkpoint": False,
    "init_from": "scratch",
    "batch_size": 8,
    "max_seq_len": 256,
    "vocab_size": 4096,
    "dim": 288,
    "n_layers": 8,
    "n_heads": 8,
    "n_kv_heads": 4,
    "multiple_of": 32,
    "dropout": 0.0,
    "gradient_accumulation_steps": 4,
    "learning_rate": 5e-4,
    "max_iters": 100000,
    "weight_decay": 0.1,
    "beta1": 0.9,
    "beta2": 0.95,
    "grad_clip": 1.0,
    "decay_lr": True,
    "warmup_iters": 1000,
    "device": "auto",
    "dtype": "bfloat16",
}
"""Every constant of the tutorial's train.py; its `device` is cuda:0."""


def translate_constants(constants: Mapping[str, Any]) -> Config:
    """The config equivalent to the tutorial's constants."""
    decays = constants["decay_lr"]
    settings = {
        "model": {
            "hidden_size": constants["dim"],
            "num_layers": constants["n_layers"],
            "num_heads": constants["n_heads"],
            "num_kv_heads": constants["n_kv_heads"],
            "multiple_of": constants["multiple_of"],
            "context_length": constants["max_seq_len"],
            "dropout": constants["dropout"],
        },
        "training": {
            "batch_size": constants["batch_size"],
            "accumulation_steps": constants["gradient_accumulation_steps"],
            "sequence_length": constants["max_seq_len"],
            "eval_interval": constants["eval_interval"],
            "eval_batches": constants["eval_iters"],
            "eval_only": constants["eval_only"],
            "always_save_checkpoint": constants["always_save_checkpoint"],
            "init_from": constants["init_from"],
            "log_interval": constants["log_interval"],
            "checkpoint_interval": constants["eval_interval"],
            "device": constants["device"],
            "dtype": constants["dtype"],
        },
        "schedule": {
            "num_steps": constants["max_iters"],
            "peak": constants["learning_rate"],
            "floor": 0.0 if decays else constants["learning_rate"],
            "warmup_steps": constants["warmup_iters"] if decays else 0,
        },
        "optimizer": {
            "beta1": constants["beta1"],
            "beta2": constants["beta2"],
            "weight_decay": constants["weight_decay"],
            "grad_clip": constants["grad_clip"],
        },
    }
    return config_for_shards(constants["vocab_size"], [("train.py", settings)])
