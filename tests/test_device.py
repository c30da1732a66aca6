"""Where things run, with reasons."""

import sys
from types import SimpleNamespace

import pytest
import torch

from diffusekit import device
from diffusekit.errors import UsageError


def test_the_cpu_gets_float32():
    placement = device.choose("cpu")
    assert (placement.device.type, placement.dtype) == ("cpu", torch.float32)
    assert "float32" in placement.reason and "was asked for" in placement.reason


def test_cuda_gets_half_precision(monkeypatch):
    monkeypatch.setattr(device, "available", lambda: ["cuda", "cpu"])
    placement = device.choose()
    assert (placement.device.type, placement.dtype) == ("cuda", torch.float16)
    assert device.choose(dtype="bfloat16").dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["gpu", "cuda:one", "xla", "meta"])
def test_an_unavailable_device_is_refused(name):
    with pytest.raises(UsageError) as error:
        device.choose(name)
    assert "this machine has: " in error.value.hint


def test_attention_that_works_is_accepted():
    for kind in ("sdpa", "math"):
        device.check_attention(kind, device.choose("cpu"))


def test_xformers_is_refused_with_the_reason(monkeypatch):
    """Not installed, and installed for another device: one token shows it."""
    monkeypatch.setitem(sys.modules, "xformers", None)
    with pytest.raises(UsageError, match="xformers is not installed") as error:
        device.check_attention("xformers", device.choose("cpu"))
    assert "sdpa" in error.value.hint

    def fail(*_):
        raise NotImplementedError("No operator found for `memory_efficient_attention_forward`\nmore")

    ops = SimpleNamespace(memory_efficient_attention=fail)
    monkeypatch.setitem(sys.modules, "xformers", SimpleNamespace(ops=ops))
    monkeypatch.setitem(sys.modules, "xformers.ops", ops)
    with pytest.raises(UsageError, match="xformers does not work on cpu: No operator found") as error:
        device.check_attention("xformers", device.choose("cpu"))
    assert "\n" not in error.value.message


def test_free_memory_is_that_of_the_machine_or_its_container():
    free = device.free_memory(torch.device("cpu"))
    assert 10**8 < free < 10**14
