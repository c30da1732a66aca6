"""Recording cross-attention: how much every place of a picture looks at every token of its prompt.

The attention of a U-Net layer is softmax(q kᵀ / √d) (Vaswani et al., 2017); maps of it show which word drew
what (Hertz et al., 2022; DAAM, Tang et al., 2022). Layers are overheard, not changed: a hook keeps what went
into them, and the probabilities are computed anew, beside the picture, when somebody asks. So the picture
is the same to the bit, with any attention processor, and a step that nobody asks about costs nothing. Knows
token positions, not words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

AT_ONCE = 2**25  # probabilities held at one time, 128 MB


@dataclass(frozen=True, eq=False)
class _Heard:
    """What went into a layer at the last evaluation."""

    hidden: torch.Tensor
    states: torch.Tensor
    mask: torch.Tensor | None
    temb: torch.Tensor | None


class AttentionRecorder:
    """What the layers of a U-Net look at; made by `recording`. Set `on` to False to skip evaluations."""

    def __init__(self, layers: dict[str, Any], *, guided: bool):
        self.is_recording = True
        self._layers, self._guided = layers, guided
        self._heard: dict[str, _Heard] = {}
        self._size = (0, 0)

    def maps(self) -> torch.Tensor:
        """The last evaluation, averaged over heads and layers: (B, T, h, w), float32, on the CPU.

        `h w` are those of the layer that sees most; the others are enlarged to it (bilinear). At every
        place the T values sum to one.
        """
        found = list(self._each())
        size = max(maps.shape[-2:] for maps in found)
        total = sum(_enlarged(maps, size) for maps in found)
        assert isinstance(total, torch.Tensor)
        return (total / total.sum(1, keepdim=True)).cpu()

    def per_layer(self) -> dict[str, torch.Tensor]:
        """The last evaluation by the layers' names, averaged over heads: (B, T, h, w), each of its own size."""
        return {name: maps.cpu() for name, maps in zip(self._heard, self._each(), strict=True)}

    def _each(self) -> Iterator[torch.Tensor]:
        assert self._heard, "the U-Net has not been evaluated while the recording was on"
        for name, heard in self._heard.items():
            found = _probabilities(self._layers[name], heard, guided=self._guided)
            yield found.unflatten(-1, _shape(found.shape[-1], self._size))

    def _begin(self, _unet: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before the U-Net is evaluated: forget the evaluation before."""
        self._heard.clear()
        sample = args[0] if args else kwargs["sample"]
        self._size = tuple(sample.shape[-2:])

    def _hear(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before a layer runs: keep what goes into it."""
        if self.is_recording:
            given = dict(zip(("hidden_states", "encoder_hidden_states"), args, strict=False)) | kwargs
            self._heard[name] = _Heard(
                given["hidden_states"],
                given["encoder_hidden_states"],
                given.get("attention_mask"),
                given.get("temb"),
            )


def layers(unet: Any) -> dict[str, Any]:
    """The cross-attention layers of a U-Net by name, like `up_blocks.1.attentions.0.transformer_blocks.0.attn2`."""
    return {
        name: module
        for name, module in unet.named_modules()
        if getattr(module, "is_cross_attention", False) and hasattr(module, "to_q")
    }


def localizing_layers(unet: Any) -> list[str]:
    """The layers whose maps point at things: on the way up, finer than the middle of the U-Net.

    `docs/visualise.md` has the measurements. All layers, in a U-Net that has none of these.
    """
    names = list(layers(unet))
    up = [name for name in names if name.startswith("up_blocks.")]
    return [name for name in up if not name.startswith("up_blocks.0.")] or names


@contextmanager
def record(unet: Any, *, layers: Sequence[str] | None = None, guided: bool = False) -> Iterator[AttentionRecorder]:
    """While open, the result's `take()` says where the last evaluation of `unet` looked.

    `layers` are beginnings of names to choose from (`layers()` lists them), all without it. `guided` says
    that the batch is without the prompt and with it, in this order: only the second half is kept.
    Recordings may overlap. The layers are left as they were, whatever happens.
    """
    there = _chosen(unet, layers)
    maps = AttentionRecorder(there, guided=guided)
    hooks = [unet.register_forward_pre_hook(maps._begin, with_kwargs=True)]
    try:
        for name, layer in there.items():
            hooks.append(layer.register_forward_pre_hook(_listener(maps, name), with_kwargs=True))
        yield maps
    finally:
        for hook in hooks:
            hook.remove()
        maps._heard.clear()


def _chosen(unet: Any, names: Sequence[str] | None) -> dict[str, Any]:
    there = layers(unet)
    if names is None:
        return there
    for name in names:
        assert any(layer.startswith(name) for layer in there), f"no layer {name!r} in {list(there)}"
    return {name: layer for name, layer in there.items() if name.startswith(tuple(names))}


def _listener(maps: AttentionRecorder, name: str) -> Any:
    def listen(_layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        maps._hear(name, args, kwargs)

    return listen


@torch.no_grad()
def _probabilities(attn: Any, heard: _Heard, *, guided: bool) -> torch.Tensor:
    """softmax(q kᵀ · scale), averaged over heads: (B, T, N) for N places.

    What diffusers' processors do before the softmax is done here too: norms, masks, heads.
    """
    hidden, states, mask = heard.hidden, heard.states, heard.mask
    if attn.spatial_norm is not None:
        hidden = attn.spatial_norm(hidden, heard.temb)
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
    each = max(AT_ONCE // (attn.heads * q.shape[2] * k.shape[2]), 1)
    found = []
    for start in range(0, len(q), each):
        part = slice(start, start + each)
        scores = q[part].float() @ k[part].float().transpose(-1, -2) * attn.scale
        if mask is not None:
            scores = scores + mask[skip:][part]
        found.append(scores.softmax(-1).mean(1))
    return torch.cat(found).transpose(1, 2)


def _shape(places: int, size: tuple[int, int]) -> tuple[int, int]:
    """(h, w) of a layer that sees `places`, in a U-Net that halves latents of `size` at every level."""
    h, w = size
    while h * w > places:
        h, w = -(-h // 2), -(-w // 2)
    assert h * w == places, f"{places} places are no halving of {size}"
    return h, w


def _enlarged(maps: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    if maps.shape[-2:] == torch.Size(size):
        return maps
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)
