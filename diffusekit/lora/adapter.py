"""Let LoRA files change what the networks of a model compute, and leave their weights alone.

A layer that a LoRA changes computes W·x + scale · up · (down · x) (Hu et al., 2021). The second term is added by a hook
that exists only while the network runs. So the model, which others may use at the same time, is never changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from ..device import Placement
from ..display import quote
from ..errors import FileRefused
from ..lora_request import LoraRequest
from ..model_files.families import SD1, SD2, SDXL
from ..models import Model
from . import layouts
from .layouts import LayerKey
from .weights import LoraLayer, LoraWeights

_FAMILIES = {768: SD1.label, 1024: SD2.label, 2048: SDXL.label}  # by the width of the text states


@dataclass(frozen=True)
class LoraMatch:
    """How many of the `total` layers of a LoRA file the model has. `unmatched` names the first one that it lacks."""

    name: str
    matched: int
    total: int
    unmatched: str = ""

    def __str__(self) -> str:
        return f"the LoRA {self.name} matched {self.matched} of {self.total} layers"


@dataclass(frozen=True, eq=False)
class _Change:
    """What is added to the output of a layer: `up` holds the scale and the strength."""

    down: torch.Tensor
    up: torch.Tensor

    def apply(self, layer: Any, x: torch.Tensor) -> torch.Tensor:
        x = x.to(self.down.device, self.down.dtype)
        if isinstance(layer, torch.nn.Conv2d):
            return F.conv2d(F.conv2d(x, self.down, None, layer.stride, layer.padding, layer.dilation), self.up)
        return F.linear(F.linear(x, self.down), self.up)


class LoraAdapter:
    """LoRA files with their strengths, fitted to a model."""

    def __init__(self, model: Model, loras: Sequence[tuple[LoraWeights, LoraRequest]]):
        """The files must match the model: `match_layers` says whether they do."""
        parts: dict[Any, list[tuple[LoraLayer, float]]] = {}
        layers = _layers_of(model)
        for weights, request in loras:
            for key, change in weights.layers.items():
                strength = request.unet if key.part == layouts.UNET else request.text_encoder
                layer = layers.get(key)
                if layer is not None and strength:
                    parts.setdefault(layer, []).append((change, strength))
        unet_layers = {id(layer) for key, layer in layers.items() if key.part == layouts.UNET}
        changes = {layer: _join(layer, each, model.placement) for layer, each in parts.items()}
        self._unet = {layer: change for layer, change in changes.items() if id(layer) in unet_layers}
        self._text = {layer: change for layer, change in changes.items() if id(layer) not in unet_layers}

    @contextmanager
    def applied_to_text(self) -> Iterator[None]:
        """While open, the text encoders of the model compute with the LoRA."""
        with _hooks(self._text):
            yield

    def adapt(self, unet: Any) -> Any:
        """Return a call that runs the U-Net with the LoRA; without changes to it, the U-Net itself."""
        if not self._unet:
            return unet

        def run(*args: Any, **kwargs: Any) -> Any:
            with _hooks(self._unet):
                return unet(*args, **kwargs)

        return run


@contextmanager
def _hooks(changes: Mapping[Any, _Change]) -> Iterator[None]:
    with ExitStack() as stack:
        for layer, change in changes.items():
            stack.callback(layer.register_forward_hook(_hook(change)).remove)
        yield


def _hook(change: _Change) -> Any:
    def add(layer: Any, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        return output + change.apply(layer, args[0]).to(output)

    return add


def _join(layer: Any, each: Sequence[tuple[LoraLayer, float]], placement: Placement) -> _Change:
    """Put the matrices of several files for one layer side by side, so that the layer gains one product."""
    kernel = tuple(layer.weight.shape[2:])
    downs, ups = [], []
    for change, strength in each:
        rank = change.up.shape[1]
        downs.append(change.down.float().reshape(rank, -1, *kernel))
        ups.append(change.up.float().reshape(-1, rank, *(1 for _ in kernel)) * (change.scale * strength))
    device, dtype = placement.device, placement.dtype
    return _Change(torch.cat(downs).to(device, dtype), torch.cat(ups, dim=1).to(device, dtype))


def _layers_of(model: Model) -> dict[LayerKey, Any]:
    """Return every layer of a model that a LoRA can change, by its names."""
    found = {LayerKey(layouts.UNET, name): layer for name, layer in layouts.layers_of_unet(model.unet).items()}
    for part, encoder in zip((layouts.TEXT_ENCODER, layouts.TEXT_ENCODER_2), model.text_encoders, strict=False):
        layers = layouts.layers_of_text_encoder(encoder)
        found |= {LayerKey(part, name): layer for name, layer in layers.items()}
    return found


def match_layers(model: Model, weights: LoraWeights, name: str) -> LoraMatch:
    """Count the layers of a LoRA file that the model has.

    Raises `FileRefused` when there are none, and when the shape of one does not fit.
    """
    header = weights.header
    layers = _layers_of(model)
    if family := _other_family(model, weights):
        raise FileRefused(
            f"{name} is a LoRA for {family}, and the model {model.name} is a {model.family.label} model",
            f"use a LoRA for {model.family.label}, or a {family} model",
        )
    matched = [key for key in weights.layers if key in layers]
    unmatched = [key.layer for key in weights.layers if key not in layers]
    if not matched:
        raise FileRefused(
            f"the LoRA {name} matched 0 of {len(unmatched)} layers of the model {model.name}, "
            f"the first one is {quote(unmatched[0], 100)}",
            f"use a LoRA for {model.family.label}; {layouts.SUPPORTED}",
        )
    for key in matched:
        change, weight = weights.layers[key], layers[key].weight
        ours = (change.up.shape[0], change.down[0].numel())
        if ours != (wanted := (weight.shape[0], weight[0].numel())):
            width = header.context_width
            trained = f", whose text states are {width} wide" if width else ""
            raise FileRefused(
                f"the LoRA {name} does not fit the model {model.name}: it was trained for another model{trained}; "
                f"{quote(key.layer, 100)} has the shape {_format(ours)}, expected {_format(wanted)}",
                f"use a LoRA for {model.family.label} models like {model.name}",
            )
    return LoraMatch(name, len(matched), len(weights.layers), unmatched[0] if unmatched else "")


def _format(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))


def _other_family(model: Model, weights: LoraWeights) -> str:
    """Return the family of a LoRA file if it is another one than the model's."""
    width, family = weights.header.context_width, ""
    if weights.header.is_xl:
        family = SDXL.label
    elif width and width != int(model.unet.config.cross_attention_dim):
        family = _FAMILIES.get(width, "")
    return "" if family == model.family.label else family
