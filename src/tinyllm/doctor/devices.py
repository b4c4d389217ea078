"""Peak rates, memory and network of known GPUs, from their makers' data sheets.

The rate is that of dense matrix products in bfloat16: data sheets also print twice as much, for matrices that are half
zeros. The link is the fastest way out of the device, one direction: NVLink or Infinity Fabric, else PCIe.
"""

from dataclasses import dataclass

from tinyllm.errors import UsageError


@dataclass(frozen=True)
class Device:
    """A GPU as its data sheet describes it."""

    title: str
    flops_per_second: float
    """Peak of dense products in bfloat16, summed in float32."""
    memory_bytes: float
    link_bytes_per_second: float
    """Largest rate at which the device sends to others of its host."""
    source: str


DEVICES = {
    "a100": Device("A100 SXM 80 GB", 312e12, 80e9, 300e9, "NVIDIA A100 data sheet"),
    "h100": Device("H100 SXM", 989e12, 80e9, 450e9, "NVIDIA H100 data sheet: 1,979 with sparsity"),
    "h200": Device("H200 SXM", 989e12, 141e9, 450e9, "NVIDIA H200 data sheet: 1,979 with sparsity"),
    "b200": Device("B200", 2250e12, 180e9, 900e9, "NVIDIA HGX B200 data sheet: 36 PFLOPS for 8, with sparsity"),
    "l4": Device("L4", 121e12, 24e9, 32e9, "NVIDIA L4 data sheet: 242 with sparsity"),
    "l40s": Device("L40S", 362e12, 48e9, 32e9, "NVIDIA L40S data sheet: 362 without sparsity"),
    "rtx4090": Device("GeForce RTX 4090", 165e12, 24e9, 32e9, "NVIDIA Ada architecture paper, appendix A"),
    "mi300x": Device("Instinct MI300X", 1307e12, 192e9, 448e9, "AMD Instinct MI300X data sheet"),
}
"""By the name that a user gives."""


def find_device(name: str) -> Device:
    """The device of a name, in any case. Raises UsageError for an unknown one, with the known ones."""
    device = DEVICES.get(name.lower().replace(" ", "").replace("-", ""))
    if device is None:
        raise UsageError(f"gpu is {name!r}; known are {', '.join(sorted(DEVICES))}", parameter="gpu")
    return device
