"""Similarity of images and texts: cosines in CLIP's space (Radford et al., 2021).

Uses the CLIP that comes with a model (`mini` has one), or one from the hub's cache. Downloads nothing.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from . import text
from .models import TextModel

log = logging.getLogger(__name__)

MEAN, STD = (0.4815, 0.4578, 0.4082), (0.2686, 0.2613, 0.2758)  # of CLIP's pixels, by channel


class ClipScorer:
    """The image and text encoder of a CLIP. Embeddings are (N, P), float32, on the CPU, of length one."""

    def __init__(
        self,
        name: str,
        size: int,
        encode_images: Callable[[torch.Tensor], torch.Tensor],
        encode_texts: Callable[[Sequence[str]], torch.Tensor],
    ):
        """`size` is the width of the square images (N, 3, `size`, `size`) in [-1, 1] for `encode_images`."""
        self.name, self._size = name, size
        self._encode_images, self._encode_texts = encode_images, encode_texts

    @torch.no_grad()
    def embed_images(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embed images (N, 3, H, W) in [-1, 1], of any size."""
        fitted = F.interpolate(pixels.float(), (self._size, self._size), mode="bicubic", antialias=True)
        return F.normalize(self._encode_images(fitted.clamp(-1, 1)).float(), dim=-1).cpu()

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Embed texts; what does not fit in the context is cut off."""
        return F.normalize(self._encode_texts(texts).float(), dim=-1).cpu()


def load_scorer(model: TextModel, clip: str = "") -> ClipScorer | None:
    """Load the CLIP of a model, or `clip` from the hub's cache; None if there is neither."""
    if (model.folder / "text_projection.safetensors").is_file():
        return _own(model)
    return _cached(clip, model.placement.device) if clip else None


def mean_pairwise_similarity(embeddings: torch.Tensor) -> float:
    """Return the mean cosine between different rows of (N, P); 1 if there is only one row."""
    count = len(embeddings)
    if count < 2:
        return 1.0
    return float((embeddings @ embeddings.T).sum() - count) / (count * (count - 1))


def _own(model: TextModel) -> ClipScorer:
    from safetensors.torch import load_file
    from transformers import CLIPVisionModelWithProjection

    device = model.placement.device
    encoder: Any = CLIPVisionModelWithProjection.from_pretrained(
        model.folder / "image_encoder", local_files_only=True, use_safetensors=True
    )
    encoder = encoder.float().eval().requires_grad_(False).to(device)
    projection = load_file(model.folder / "text_projection.safetensors")["text_projection.weight"]
    projection = projection.float().to(device)

    def encode_texts(texts: Sequence[str]) -> torch.Tensor:
        pooled = text.encode(model, texts).pooled
        assert pooled is not None
        return pooled.float() @ projection.T

    size = json.loads((model.folder / "image_encoder" / "config.json").read_text())["image_size"]
    return ClipScorer(f"{model.name}'s own CLIP", size, lambda x: encoder(x.to(device)).image_embeds, encode_texts)


def _cached(name: str, device: torch.device) -> ClipScorer | None:
    from transformers import CLIPModel, CLIPTokenizer

    try:
        options: dict[str, Any] = {"local_files_only": True}
        clip: Any = CLIPModel.from_pretrained(name, use_safetensors=True, **options)
        tokenizer = CLIPTokenizer.from_pretrained(name, **options)
    except (OSError, ValueError) as error:
        log.debug("no CLIP %s: %s", name, error)
        return None
    clip.eval().requires_grad_(False).to(device)
    mean, std = (torch.tensor(v, device=device)[:, None, None] for v in (MEAN, STD))

    def encode_images(pixels: torch.Tensor) -> torch.Tensor:
        normalized = ((pixels.to(device) + 1) / 2 - mean) / std
        return clip.visual_projection(clip.vision_model(normalized).pooler_output)

    def encode_texts(texts: Sequence[str]) -> torch.Tensor:
        tokenized = tokenizer(list(texts), padding=True, truncation=True, max_length=77, return_tensors="pt")
        return clip.text_projection(clip.text_model(**tokenized.to(device)).pooler_output)

    return ClipScorer(Path(name).name, clip.config.vision_config.image_size, encode_images, encode_texts)
