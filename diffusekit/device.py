"""Choose device and precision, and make one noise generator per image. Knows no models."""

from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Literal

import torch

from .display import first_line
from .errors import UsageError

Attention = Literal["sdpa", "xformers", "math"]

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Placement:
    """The device and precision of networks; `reason` says in a sentence why they were chosen.

    `has_free_dtype` says that the user did not ask for this precision.
    """

    device: torch.device
    dtype: torch.dtype
    reason: str = field(compare=False)
    has_free_dtype: bool = field(default=False, compare=False)

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
    if is_free := dtype == "auto":
        dtype = "float16" if chosen.type in ("cuda", "xpu") else "float32"
        why += f"; {dtype} is the usual precision there"
    return Placement(chosen, _DTYPES[dtype], why, is_free)


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


def check_attention(kind: Attention, placement: Placement) -> None:
    """Compute the attention of one token on a device; raises `UsageError` with the reason when it does not work."""
    try:
        _attend(kind, placement)
    except ModuleNotFoundError as error:
        if error.name and error.name.partition(".")[0] == "xformers":
            raise UsageError("`attention` xformers is not installed", _USE_SDPA) from error
        raise UsageError(f"`attention` {kind} does not work here: {first_line(error, 120)}", _USE_SDPA) from error
    except Exception as error:  # xformers, CUDA and torch share no error type
        raise UsageError(
            f"`attention` {kind} does not work on {placement.device}: {first_line(error, 120)}", _USE_SDPA
        ) from error


_USE_SDPA = "set `attention` to sdpa, the attention of torch, which is as fast"


def _attend(kind: Attention, placement: Placement) -> None:
    if kind == "xformers":  # heads are the third dimension there
        token = torch.ones(1, 1, 1, 64, device=placement.device, dtype=placement.dtype)
        import_module("xformers.ops").memory_efficient_attention(token, token, token)
    else:
        token = torch.ones(1, 1, 1, 64, device=placement.device, dtype=placement.dtype)
        torch.nn.functional.scaled_dot_product_attention(token, token, token)


def free_memory(device: torch.device) -> int:
    """Return the bytes that are free on a device. On a CPU the limit of a container counts too."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    if device.type == "xpu":
        return torch.xpu.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    import psutil

    return min(psutil.virtual_memory().available, *_container_limits())


def _container_limits() -> list[int]:
    """What is left of the memory of this process's control group, in both versions of them.

    Files that the system keeps in memory count as free, because it drops them when memory is needed.
    """
    left = []
    for limit, used, cached in (
        ("memory.max", "memory.current", "file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "cache"),
    ):
        root = Path("/sys/fs/cgroup")
        try:
            rows = (root / limit).with_name("memory.stat").read_text().splitlines()
            files = int(dict(row.split(" ", 1) for row in rows).get(cached, 0))
            left.append(int((root / limit).read_text()) - int((root / used).read_text()) + files)
        except (OSError, ValueError):  # there is no such group, or its limit is "max"
            continue
    return [max(each, 0) for each in left] or [2**63]


def make_generators(seeds: list[int]) -> list[torch.Generator]:
    """Make one CPU generator per image, so that noise is the same at any batch size and on any device."""
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
