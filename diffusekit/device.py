"""Choose device and precision, and make one noise generator per image. Knows no models."""

from dataclasses import dataclass

import torch

from .errors import UsageError

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Placement:
    """The device and precision of networks; `reason` says in a sentence why they were chosen."""

    device: torch.device
    dtype: torch.dtype
    reason: str

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    @property
    def is_half(self) -> bool:
        """Whether the precision has 16 bits."""
        return self.dtype != torch.float32


def available() -> list[str]:
    """List the kinds of device that this machine has, the fastest first."""
    kinds = {
        "cuda": torch.cuda.is_available(),
        "xpu": torch.xpu.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    return [kind for kind, there in kinds.items() if there]


def choose(device: str = "auto", dtype: str = "auto") -> Placement:
    """Choose device and precision.

    The default precision is float16 on CUDA and XPU, where it doubles speed and halves memory. Elsewhere it is
    float32, because float16 is slower on CPUs and gives black images on MPS. Raises `UsageError` for a device
    that is not available.
    """
    kinds = available()
    if device == "auto":
        chosen, why = torch.device(kinds[0]), f"{kinds[0]} is the fastest device here"
    else:
        chosen, why = _named(device, kinds), f"{device} was asked for"
    if dtype == "auto":
        dtype = "float16" if chosen.type in ("cuda", "xpu") else "float32"
        why += f"; {dtype} is the usual precision there"
    return Placement(chosen, _DTYPES[dtype], why)


def _named(device: str, kinds: list[str]) -> torch.device:
    hint = f"this machine has: {', '.join(kinds)}"
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise UsageError(f"{device!r} is not a device", hint) from None
    if chosen.type not in kinds:
        raise UsageError(f"the device {device!r} is not available", hint)
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"{device} is not available: this machine has {torch.cuda.device_count()} CUDA device(s)", "use cuda:0"
        )
    return chosen


def attention_backend(placement: Placement) -> str:
    """Run torch's attention once on a device and return its name; raises what torch raises."""
    token = torch.ones(1, 1, 1, 64, device=placement.device, dtype=placement.dtype)
    torch.nn.functional.scaled_dot_product_attention(token, token, token)
    return "torch scaled_dot_product_attention"


def make_generators(seeds: list[int]) -> list[torch.Generator]:
    """Make one CPU generator per image, so that noise is the same at any batch size and on any device."""
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
