"""How alike are two pictures, or a picture and a text: cosines in CLIP's space (Radford et al., 2021).

Uses the towers that a model brings (`mini` does), or a CLIP from the hub's cache. Downloads nothing.
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

_MEAN, _STD = (0.4815, 0.4578, 0.4082), (0.2686, 0.2613, 0.2758)


class ClipScorer:
    """Both towers of a CLIP; all embeddings are (N, P), float32, on the CPU, of length one."""

    def __init__(
        self,
        name: str,
        side: int,
        see: Callable[[torch.Tensor], torch.Tensor],
        read: Callable[[Sequence[str]], torch.Tensor],
    ):
        self.name, self._side, self._see, self._read = name, side, see, read

    @torch.no_grad()
    def embed_images(self, pictures: torch.Tensor) -> torch.Tensor:
        """Embeddings of pictures (N, 3, H, W) in [-1, 1], of any size."""
        fitted = F.interpolate(pictures.float(), (self._side, self._side), mode="bicubic", antialias=True)
        return F.normalize(self._see(fitted.clamp(-1, 1)).float(), dim=-1).cpu()

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Embeddings of texts."""
        return F.normalize(self._read(texts).float(), dim=-1).cpu()


def load_scorer(model: TextModel, clip: str = "") -> ClipScorer | None:
    """The CLIP that goes with a model: its own, or `clip` if that lies in the cache; None without."""
    if (model.folder / "text_projection.safetensors").is_file():
        return _own(model)
    return _cached(clip, model.placement.device) if clip else None


def mean_pairwise_similarity(embeddings: torch.Tensor) -> float:
    """Mean cosine between different rows of (N, P); 1 when there is only one."""
    count = len(embeddings)
    if count < 2:
        return 1.0
    return float((embeddings @ embeddings.T).sum() - count) / (count * (count - 1))


def _own(model: TextModel) -> ClipScorer:
    from safetensors.torch import load_file
    from transformers import CLIPVisionModelWithProjection

    device = model.placement.device
    tower: Any = CLIPVisionModelWithProjection.from_pretrained(
        model.folder / "image_encoder", local_files_only=True, use_safetensors=True
    )
    tower = tower.float().eval().requires_grad_(False).to(device)
    projection = load_file(model.folder / "text_projection.safetensors")["text_projection.weight"]
    projection = projection.float().to(device)

    def read(texts: Sequence[str]) -> torch.Tensor:
        pooled = text.encode(model, texts).pooled
        assert pooled is not None
        return pooled.float() @ projection.T

    side = json.loads((model.folder / "image_encoder" / "config.json").read_text())["image_size"]
    return ClipScorer(f"{model.name}'s own CLIP", side, lambda x: tower(x.to(device)).image_embeds, read)


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
    mean, std = (torch.tensor(v, device=device)[:, None, None] for v in (_MEAN, _STD))

    def see(pictures: torch.Tensor) -> torch.Tensor:
        pixels = ((pictures.to(device) + 1) / 2 - mean) / std
        return clip.visual_projection(clip.vision_model(pixels).pooler_output)

    def read(texts: Sequence[str]) -> torch.Tensor:
        words = tokenizer(list(texts), padding=True, truncation=True, max_length=77, return_tensors="pt")
        found = clip.text_model(**words.to(device)).pooler_output
        return clip.text_projection(found)

    return ClipScorer(Path(name).name, clip.config.vision_config.image_size, see, read)
