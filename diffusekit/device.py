"""Which device, precision and attention are used, and why; and a generator of noise for every image.

Knows no models.
"""

from dataclasses import dataclass

import torch

from .errors import UsageError

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Placement:
    """Where and how networks run; `reason` is a sentence for people."""

    device: torch.device
    dtype: torch.dtype
    reason: str

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")


def available() -> list[str]:
    """The kinds of device this machine has, the fastest first."""
    kinds = {
        "cuda": torch.cuda.is_available(),
        "xpu": torch.xpu.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    return [kind for kind, there in kinds.items() if there]


def choose(device: str = "auto", dtype: str = "auto") -> Placement:
    """Choose device and precision.

    Half precision on CUDA and XPU, where it doubles speed and halves memory; float32 elsewhere, where
    it is slower (CPU) or makes black pictures (MPS). Raises `UsageError` for a device that is not there.
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
        raise UsageError(f"there is no device called {device!r}", hint) from None
    if chosen.type not in kinds:
        raise UsageError(f"the device {device!r} is not available", hint)
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"there is no {device}, only {torch.cuda.device_count()} CUDA device(s)", "use cuda:0")
    return chosen


def attention_backend(placement: Placement) -> str:
    """The attention that really runs on a device: a one-token call of torch's own, reported by name."""
    token = torch.ones(1, 1, 1, 64, device=placement.device, dtype=placement.dtype)
    torch.nn.functional.scaled_dot_product_attention(token, token, token)
    return "torch scaled_dot_product_attention"


def make_generators(seeds: list[int]) -> list[torch.Generator]:
    """One CPU generator per image: the same noise at any batch size, on any device."""
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
