"""Sharded training (FSDP2): each rank keeps a slice of every weight, gradient and moment.

`torch.distributed.fsdp.fully_shard` gathers the weights of a block for its passes and frees them again. Functions here
that need whole tensors gather them one after the other, so every rank must call them. For a model that is not sharded
they return its own tensors at once. (Zhao et al. 2023, PyTorch FSDP.)
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from tinyllm.config import Config
from tinyllm.errors import UsageError
from tinyllm.machine import ranks
from tinyllm.model.transformer import Transformer
from tinyllm.safetensors_file import make_header

KERNELS_REFUSAL = "tiled attention trains whole weights, and training.parallel fsdp shards them"


def shards(config: Config) -> bool:
    """Whether the run of `config` is sharded: one process keeps its weights whole."""
    return config.training.parallel == "fsdp" and ranks.num_ranks() > 1


def settle(config: Config) -> Config:
    """`config` without torch.compile if it is sharded. Raises UsageError for a setting that is refused then."""
    settings, num_ranks = config.training, ranks.num_ranks()
    if not shards(config):
        return config
    refused = {
        "optimizer.name is muon, which needs whole matrices": config.optimizer.name == "muon",
        "training.dtype is float16, whose gradients are scaled": settings.dtype == "float16",
        "training.attention is tiled, which needs whole weights": settings.attention == "tiled",
        "training.compile is on": settings.compile == "on",
    }
    for problem, is_set in refused.items():
        if is_set:
            raise UsageError(f"{problem}; training.parallel fsdp does without it; choose another, or parallel ddp")
    if settings.batch_size * settings.accumulation_steps % num_ranks:
        raise UsageError(
            f"training.parallel fsdp needs equal shares, and {num_ranks} ranks cannot share "
            f"{settings.batch_size * settings.accumulation_steps} windows an update evenly; "
            "change training.batch_size or training.accumulation_steps"
        )
    return config.model_copy(update={"training": settings.model_copy(update={"compile": "off"})})


def shard(model: Transformer, dtype: str, device: torch.device) -> None:
    """Replaces the parameters of `model` by this rank's slices on `device`; passes run in `dtype`.

    Gradients are summed in float32. Blocks move to `device` one by one.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(device.type, (ranks.num_ranks(),))
    # Inputs are not cast: rotary tables stay float32.
    policy = MixedPrecisionPolicy(cast_forward_inputs=False)
    if dtype == "bfloat16":
        policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
    for module in (*model.model.layers, model):
        fully_shard(module, mesh=mesh, mp_policy=policy)
        assert isinstance(module, FSDPModule)
        # The loss is divided by the targets of all ranks, so gradients are summed; gloo knows no other sum.
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)
    register_fsdp_forward_method(model, "hidden_states")


def is_slice(tensor: Tensor) -> bool:
    """Whether `tensor` is this rank's slice of a tensor of a sharded model."""
    return hasattr(tensor, "full_tensor")


def is_sharded(model: nn.Module) -> bool:
    """Whether `shard` has replaced the parameters of `model`."""
    return hasattr(model, "reshard")


def reshard(model: nn.Module) -> None:
    """Frees the weights that passes without a backward pass have gathered."""
    if is_sharded(model):
        model.reshard()  # type: ignore[operator]


def total_norm(gradients: list[Tensor]) -> Tensor:
    """The Euclidean norm of all gradients together, of whole ones or of the slices of all ranks."""
    norm = nn.utils.get_total_norm(gradients, foreach=True)
    return whole(norm) if is_slice(norm) else norm


def whole(tensor: Tensor) -> Tensor:
    """The whole tensor of the slices of all ranks; `tensor` itself if it is no slice."""
    if not is_slice(tensor):
        return tensor.detach()
    with ranks.exchange():
        gathered: Tensor = tensor.full_tensor()  # type: ignore[attr-defined]
    return gathered.detach()


def slice_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """This rank's slice of the whole `tensor`, on the device of `parameter`, if that is a slice; else all of it."""
    tensor = tensor.to(parameter.device)
    if not is_slice(parameter):
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(parameter, DTensor)
    return distribute_tensor(tensor, parameter.device_mesh, parameter.placements, src_data_rank=None)


def local(tensor: Tensor) -> Tensor:
    """The numbers of `tensor` that this rank has."""
    own: Tensor = tensor.to_local() if is_slice(tensor) else tensor  # type: ignore[attr-defined]
    return own


def whole_weights(model: nn.Module) -> dict[str, Tensor]:
    """The whole weights of `model` by name, those of a sharded one in the host's memory; on other ranks empty."""
    reshard(model)
    if not is_sharded(model):
        return dict(model.state_dict()) if ranks.is_first() else {}
    weights: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        gathered = whole(tensor)
        if ranks.is_first():
            weights[name] = gathered.cpu()
    return weights


def whole_model(model: nn.Module) -> nn.Module:
    """`model`, or on the first rank of a sharded one its copy in the host's memory."""
    if not is_sharded(model):
        return model
    weights = whole_weights(model)
    if not ranks.is_first():
        return model
    assert isinstance(model, Transformer)
    with torch.device("meta"):
        copy = Transformer(model.config)
    copy.to_empty(device="cpu").load_state_dict(weights, assign=True)
    return copy


class Gathering:
    """Gathers the whole tensors of a sharded model for files that the first rank writes.

    Every rank gathers the same tensors in the same order: the first one in `stream` and `finish`, the others in
    `finish` alone. At most one whole tensor is in memory.
    """

    def __init__(self, *files: Mapping[str, Tensor]) -> None:
        """`files` are the tensors of each file, in the order in which the files are written."""
        self._left = [tensor for tensors in files for tensor in tensors.values()]
        self._left.reverse()

    def stream(self, tensors: Mapping[str, Tensor]) -> Iterator[bytes]:
        """The parts of a safetensors file of the next float32 `tensors`: its header, then each tensor."""
        yield make_header({name: tuple(tensor.shape) for name, tensor in tensors.items()})
        for _ in tensors:
            yield whole(self._left.pop()).float().cpu().contiguous().numpy().tobytes()

    def finish(self) -> None:
        """Gathers what is left. Without it the other ranks would wait for a first rank that could not write."""
        while self._left:
            whole(self._left.pop())
