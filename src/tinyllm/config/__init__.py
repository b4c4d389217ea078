"""Settings: typed sections, recipes, and the layers that make a config of them."""

from tinyllm.config.sections import (
    LARGEST_SIZE,
    Automatic,
    Config,
    FinetuneConfig,
    ModelConfig,
    OptimizerConfig,
    RopeScalingKind,
    SamplingConfig,
    ScheduleConfig,
    Section,
    TrainingConfig,
    TrainingSamplesConfig,
    Unit,
    WeightsKind,
    wrong_setting,
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
