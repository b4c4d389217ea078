"""Settings: typed sections, recipes, and the layers that make a config of them."""

from tinyllm.config.fields import LARGEST_SIZE, Automatic, Section, Unit, wrong_setting
from tinyllm.config.model_config import ModelConfig, RopeScalingKind
from tinyllm.config.sections import (
    Config,
    FinetuneConfig,
    OptimizerConfig,
    SamplingConfig,
    ScheduleConfig,
    TrainingConfig,
    TrainingSamplesConfig,
    WeightsKind,
)

__all__ = [
    "LARGEST_SIZE",
    "Automatic",
    "Config",
    "FinetuneConfig",
    "ModelConfig",
    "OptimizerConfig",
    "RopeScalingKind",
    "SamplingConfig",
    "ScheduleConfig",
    "Section",
    "TrainingConfig",
    "TrainingSamplesConfig",
    "Unit",
    "WeightsKind",
    "wrong_setting",
]
