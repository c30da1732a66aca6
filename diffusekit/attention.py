"""Record cross-attention: how much each position of an image attends to each token of its prompt.

The attention of a U-Net layer is softmax(q kᵀ / √d) (Vaswani et al., 2017). Maps of it show which word drew what
(Hertz et al., 2022; DAAM, Tang et al., 2022). A hook keeps the inputs of each layer, and the probabilities are
computed again from them on request. So the image stays bit-identical with any attention processor, and a step
whose maps are not read costs nothing. Knows token positions, not words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from .models.offload import enter_device

CHUNK = 2**25  # probabilities in memory at a time, 128 MB


@dataclass(frozen=True, eq=False)
class _Inputs:
    """The inputs of a layer at the last evaluation of the U-Net."""

    hidden: torch.Tensor
    states: torch.Tensor
    mask: torch.Tensor | None
    temb: torch.Tensor | None


class AttentionRecorder:
    """The cross-attention of a U-Net, made by `record`. Set `is_recording` to False to skip evaluations."""

    def __init__(self, unet: Any, layers: dict[str, Any], *, guided: bool):
        self.is_recording = True
        self._unet = unet
        self._layers, self._guided = layers, guided
        self._inputs: dict[str, _Inputs] = {}
        self._size = (0, 0)

    def maps(self) -> torch.Tensor:
        """Return the last evaluation, averaged over heads and layers: (B, T, h, w), float32, on the CPU.

        `h w` are those of the finest layer, and the others are enlarged to it (bilinear). At every position the
        T values sum to one.
        """
        layers = list(self._each())
        size = max(maps.shape[-2:] for maps in layers)
        total = sum(_enlarge(maps, size) for maps in layers)
        assert isinstance(total, torch.Tensor)
        return (total / total.sum(1, keepdim=True)).cpu()

    def per_layer(self) -> dict[str, torch.Tensor]:
        """Return the last evaluation by layer name, averaged over heads: (B, T, h, w), each of its own size."""
        return {name: maps.cpu() for name, maps in zip(self._inputs, self._each(), strict=True)}

    def _each(self) -> Iterator[torch.Tensor]:
        assert self._inputs, "the U-Net has not been evaluated while the recording was on"
        enter_device(self._unet)
        for name, inputs in self._inputs.items():
            maps = _probabilities(self._layers[name], inputs, guided=self._guided)
            yield maps.unflatten(-1, _shape(maps.shape[-1], self._size))

    def _begin(self, _unet: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Forget the last evaluation, before the U-Net is evaluated again."""
        self._inputs.clear()
        sample = args[0] if args else kwargs["sample"]
        self._size = tuple(sample.shape[-2:])

    def _keep_inputs(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep the inputs of a layer before it runs."""
        if self.is_recording:
            given = dict(zip(("hidden_states", "encoder_hidden_states"), args, strict=False)) | kwargs
            self._inputs[name] = _Inputs(
                given["hidden_states"],
                given["encoder_hidden_states"],
                given.get("attention_mask"),
                given.get("temb"),
            )


def layers(unet: Any) -> dict[str, Any]:
    """Return a U-Net's cross-attention layers by name: `up_blocks.1.attentions.0.transformer_blocks.0.attn2`, ..."""
    return {
        name: module
        for name, module in unet.named_modules()
        if getattr(module, "is_cross_attention", False) and hasattr(module, "to_q")
    }


def localizing_layers(unet: Any) -> list[str]:
    """List the layers whose maps localize best: on the way up, finer than the middle of the U-Net.

    `docs/visualise.md` has the measurements. A U-Net without such layers gives all of them.
    """
    names = list(layers(unet))
    up = [name for name in names if name.startswith("up_blocks.")]
    return [name for name in up if not name.startswith("up_blocks.0.")] or names


@contextmanager
def record(unet: Any, *, layers: Sequence[str] | None = None, guided: bool = False) -> Iterator[AttentionRecorder]:
    """While open, the recorder holds the cross-attention of the last evaluation of `unet`.

    `layers` are prefixes of the names that `layers()` lists; the default is all layers. `guided` says that the
    batch is without the prompt and with it, in this order: only the second half is kept. Recordings may overlap.
    The layers are left as they were, also after an error.
    """
    chosen = _choose(unet, layers)
    recorder = AttentionRecorder(unet, chosen, guided=guided)
    hooks = [unet.register_forward_pre_hook(recorder._begin, with_kwargs=True)]
    try:
        for name, layer in chosen.items():
            hooks.append(layer.register_forward_pre_hook(_hook(recorder, name), with_kwargs=True))
        yield recorder
    finally:
        for hook in hooks:
            hook.remove()
        recorder._inputs.clear()


def _choose(unet: Any, names: Sequence[str] | None) -> dict[str, Any]:
    every = layers(unet)
    if names is None:
        return every
    for name in names:
        assert any(layer.startswith(name) for layer in every), f"no layer {name!r} in {list(every)}"
    return {name: layer for name, layer in every.items() if name.startswith(tuple(names))}


def _hook(recorder: AttentionRecorder, name: str) -> Any:
    def keep(_layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        recorder._keep_inputs(name, args, kwargs)

    return keep


@torch.no_grad()
def _probabilities(attn: Any, inputs: _Inputs, *, guided: bool) -> torch.Tensor:
    """Compute softmax(q kᵀ · scale), averaged over heads: (B, T, N) for N positions.

    Norms, masks and heads are treated as in diffusers' processors.
    """
    hidden, states, mask = inputs.hidden, inputs.states, inputs.mask
    if attn.spatial_norm is not None:
        hidden = attn.spatial_norm(hidden, inputs.temb)
    if hidden.ndim == 4:
        hidden = hidden.flatten(2).transpose(1, 2)
    if attn.group_norm is not None:
        hidden = attn.group_norm(hidden.transpose(1, 2)).transpose(1, 2)
    if attn.norm_cross:
        states = attn.norm_encoder_hidden_states(states)
    if mask is not None:
        mask = attn.prepare_attention_mask(mask, states.shape[1], len(hidden))
        mask = mask.unflatten(0, (len(hidden), attn.heads)).float()
    skip = len(hidden) // 2 if guided else 0
    q = attn.to_q(hidden[skip:]).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
    k = attn.to_k(states[skip:]).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
    q = q if attn.norm_q is None else attn.norm_q(q)
    k = k if attn.norm_k is None else attn.norm_k(k)
    each = max(CHUNK // (attn.heads * q.shape[2] * k.shape[2]), 1)
    maps = []
    for start in range(0, len(q), each):
        part = slice(start, start + each)
        scores = q[part].float() @ k[part].float().transpose(-1, -2) * attn.scale
        if mask is not None:
            scores = scores + mask[skip:][part]
        maps.append(scores.softmax(-1).mean(1))
    return torch.cat(maps).transpose(1, 2)


def _shape(positions: int, size: tuple[int, int]) -> tuple[int, int]:
    """Return (h, w) of a layer with `positions`, in a U-Net that halves latents of `size` at every level."""
    h, w = size
    while h * w > positions:
        h, w = -(-h // 2), -(-w // 2)
    assert h * w == positions, f"{positions} positions do not come from halving {size}"
    return h, w


def _enlarge(maps: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    if maps.shape[-2:] == torch.Size(size):
        return maps
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)
