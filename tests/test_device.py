"""Where things run, with reasons."""

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


def test_attention_really_runs():
    assert "scaled_dot_product" in device.attention_backend(device.choose("cpu"))
