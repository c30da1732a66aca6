"""Keep networks in the computer's memory and bring them to the device when they work, by hooks of accelerate."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import cpu_offload
from accelerate.hooks import ModelHook, add_hook_to_module
from accelerate.utils import send_to_device

from .memory import MemoryPlan
from .model import Model


class _Stage:
    """The device, on which one network is at a time."""

    def __init__(self, device: torch.device):
        self.device = device
        self._network: Any = None

    def enter(self, network: Any) -> None:
        """Bring a network to the device, and the one that is there back; None leaves the device empty."""
        if self._network is network:
            return
        if self._network is not None:
            self._network.to("cpu")
        self._network = network
        if network is not None:
            network.to(self.device)


class _EnterHook(ModelHook):
    """Before a network works it enters the device. It stays until another one does."""

    no_grad = False

    def __init__(self, stage: _Stage):
        self._stage = stage

    def pre_forward(self, module: Any, *args: Any, **kwargs: Any) -> Any:
        self._stage.enter(module)
        return send_to_device(args, self._stage.device), send_to_device(kwargs, self._stage.device)


class _ClearHook(ModelHook):
    """Before a network works layer by layer, no other network is on the device."""

    no_grad = False

    def __init__(self, stage: _Stage):
        self._stage = stage

    def pre_forward(self, module: Any, *args: Any, **kwargs: Any) -> Any:
        self._stage.enter(None)
        return args, kwargs


def apply_plan(plan: MemoryPlan, model: Model) -> None:
    """Let networks that were built on the CPU work on the device of a plan, which has room for a part of them.

    "model": one network at a time is there. "sequential": of U-Net and VAE one layer at a time; text encoders go there
    whole, because their tables are read from outside.
    """
    if plan.offload == "none":
        return
    stage = _Stage(plan.placement.device)
    for network in (*model.text_encoders, model.unet, model.vae):
        if plan.offload == "sequential" and network in (model.unet, model.vae):
            cpu_offload(network, plan.placement.device)
            add_hook_to_module(network, _ClearHook(stage), append=True)
        else:
            add_hook_to_module(network, _EnterHook(stage))


def enter_device(network: Any) -> None:
    """Bring an offloaded network to its device, for code that calls its layers from outside."""
    hook = getattr(network, "_hf_hook", None)
    if isinstance(hook, _EnterHook):
        hook.pre_forward(network)
