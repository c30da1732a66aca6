"""What the page shows, as plain values: small pictures, bytes of latents and maps, words and numbers.

Knows models and tensors, and nothing of HTML.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import Any

import torch
from PIL import Image

from ... import text
from ...embeddings import LearnedToken
from .. import contact_sheet
from ..attention_maps import AttentionMaps
from ..trace import Trace, TraceStep, rms

MOST_STEPS = 60  # of more, evenly spaced ones are shown
LARGE, SMALL = 384, 256  # pixels: pictures that may fill the stage, and those that explain
THUMB = 48  # pixels a picture of the film strip is high
PREDICTIONS = ("without", "with", "difference")  # only there when guided


@dataclass(frozen=True, eq=False)
class LessonRun:
    """A Trace with what is needed to explain it: how its prompt was read, and where words were looked at."""

    trace: Trace
    tokenized: text.TokenizedPrompt
    words: tuple[text.WordSpan, ...]
    tokens: tuple[LearnedToken, ...]
    attention_maps: AttentionMaps | None

    @classmethod
    def of(cls, trace: Trace, tokens: Sequence[LearnedToken], maps: AttentionMaps | None) -> LessonRun:
        reading = text.tokenize(trace.model, trace.prompt, tokens)
        words = tuple(text.word_spans(trace.model, reading, tokens))
        if maps is not None:
            assert maps.maps.shape[:2] == (len(trace.steps), len(maps.words)), maps.maps.shape
        return cls(trace, reading, words, tuple(tokens), maps)

    @property
    def prompt(self) -> str:
        return self.trace.prompt

    @property
    def is_guided(self) -> bool:
        return self.trace.steps[0].guidance is not None

    @cached_property
    def step_indices(self) -> list[int]:
        """The steps that are on the page: all of them, or evenly spaced ones with the first and last."""
        total = len(self.trace.steps)
        if total <= MOST_STEPS:
            return list(range(total))
        return [round(i * (total - 1) / (MOST_STEPS - 1)) for i in range(MOST_STEPS)]

    @property
    def steps(self) -> list[TraceStep]:
        return [self.trace.steps[i] for i in self.step_indices]

    @cached_property
    def states(self) -> torch.Tensor:
        """What the U-Net looks at: (T, D), the text encoder's answer."""
        return text.encode(self.trace.model, [self.prompt], self.tokens).states[0].float().cpu()

    def pieces(self) -> list[dict[str, Any]]:
        """The places of the reading: what stands there, its id, and what kind of thing it is."""
        names = text.token_names(self.trace.model, self.tokenized)
        stop = self.tokenized.end
        learned = {
            place: word.text
            for word in self.words
            for place in range(word.start, word.stop)
            if self.tokenized.vector_index[place] >= 0
        }
        found = []
        for place, (number, name) in enumerate(zip(self.tokenized.ids, names, strict=True)):
            kind = "piece" if 0 < place < stop else "padding"
            kind = {0: "start", stop: "end"}.get(place, kind)
            shown = kind if kind in ("start", "end") else name.replace("</w>", "")
            if place in learned:
                kind, shown = "learned", learned[place]
            found.append({"text": shown, "id": None if place in learned else number, "kind": kind})
        return found

    def numbers(self) -> dict[str, Any]:
        """Everything the page says of this run, as plain values."""
        return {
            "prompt": self.prompt,
            "seed": self.trace.result.record.settings.seed,
            "ids": self.tokenized.ids,
            "words": [word.text for word in self.words],
            "cut": self.tokenized.truncated,
            "steps": [finite(moment.numbers()) for moment in self.trace.steps],
        }


def finite(numbers: dict[str, Any]) -> dict[str, Any]:
    """Numbers that JSON can hold: None for infinity."""
    return {
        key: value if not isinstance(value, float) or math.isfinite(value) else None for key, value in numbers.items()
    }


def build_payload(runs: Sequence[LessonRun]) -> dict[str, Any]:
    """What the page's script gets: per run the pictures, latents, maps and numbers of the shown steps."""
    first = runs[0].trace
    return {
        "total": len(first.steps),
        "guidance": first.result.record.settings.guidance_scale,
        "prediction": first.model.prediction_type,
        "runs": [_run(run) for run in runs],
    }


def _run(run: LessonRun) -> dict[str, Any]:
    moments = run.steps
    return {
        "prompt": run.prompt,
        "numbers": _levels(run),
        "frames": _frames(run),
        "latents": _latents(moments),
        "heat": _heat(run),
    }


def _levels(run: LessonRun) -> list[dict[str, Any]]:
    """The numbers of the shown steps, with where each leads to, and of the finished picture."""
    every = run.trace.steps
    found = []
    for moment in run.steps:
        after = every[moment.index + 1] if moment.index + 1 < len(every) else None
        lead = (after.alpha, after.sigma) if after else (1.0, 0.0)
        found.append(finite(moment.numbers()) | {"alpha": moment.alpha, "next_alpha": lead[0], "next_sigma": lead[1]})
    size = rms(every[-1].x_next)
    done = {
        "step": len(every),
        "timestep": 0,
        "alpha_bar": 1.0,
        "sigma": 0.0,
        "snr": None,
        "alpha": 1.0,
    }
    return [*found, done | {"rms_noised": size, "rms_denoised": size}]


def _frames(run: LessonRun) -> dict[str, Any]:
    """For each kind of picture its data URIs, one a shown step; `picture` is the finished one."""
    moments = run.steps
    kinds: dict[str, tuple[list[torch.Tensor], int]] = {
        "noised": ([moment.x_t_unit for moment in moments], LARGE),
        "denoised": ([moment.x0 for moment in moments], LARGE),
        "noise": ([moment.eps for moment in moments], SMALL),
    }
    if run.is_guided:
        kinds["without"] = ([m.x0_uncond for m in moments if m.x0_uncond is not None], SMALL)
        kinds["with"] = ([m.x0_cond for m in moments if m.x0_cond is not None], SMALL)
    found: dict[str, Any] = {"picture": webp_uri(run.trace.result.image, LARGE)}
    for kind, (tensors, side) in kinds.items():
        pictures = list(run.trace.decode(tensors))
        found[kind] = [webp_uri(picture, side, 62 if kind == "noise" else 80) for picture in pictures]
        if kind == "noised":
            found["strip"] = webp_uri(_strip([*pictures, run.trace.result.image]), 10_000, 70)
    if run.is_guided:
        maps = [m.guidance.square().mean(0).sqrt() for m in moments if m.guidance is not None]
        most = max(float(m.max()) for m in maps) or 1.0
        found["difference"] = [png_uri(contact_sheet.apply_colormap((m / most).sqrt())) for m in maps]
    return found


def _strip(pictures: Sequence[Image.Image]) -> Image.Image:
    """All pictures in one row, each cut to a narrow piece so that the row is no wider than a screen."""
    width = max(min(THUMB, 1200 // len(pictures)), 10)
    strip = Image.new("RGB", (width * len(pictures), THUMB))
    for i, picture in enumerate(pictures):
        small = picture.resize((THUMB, THUMB), Image.Resampling.LANCZOS)
        left = (THUMB - width) // 2
        strip.paste(small.crop((left, 0, left + width, THUMB)), (i * width, 0))
    return strip


def _latents(moments: Sequence[TraceStep]) -> dict[str, Any]:
    """Latents as bytes: 0 to 255 stands for -most to most; the last ones are those that were decoded."""
    kinds = {
        "noised": [*(m.x_t_unit for m in moments), moments[-1].x_next.float()],
        "denoised": [*(m.x0.float() for m in moments), moments[-1].x_next.float()],
    }
    most = max(float(x.abs().max()) for found in kinds.values() for x in found) or 1.0
    channels, height, width = kinds["noised"][0].shape
    packed = {
        kind: encode_bytes(((torch.stack(found) / most + 1) * 127.5).round().clamp(0, 255))
        for kind, found in kinds.items()
    }
    return {"channels": channels, "height": height, "width": width, "most": most} | packed


def _heat(run: LessonRun) -> dict[str, Any] | None:
    """Maps as bytes, each scaled by its own highest share, which stands in `most`; the last is the mean."""
    if run.attention_maps is None:
        return None
    maps = run.attention_maps.maps.detach().float().cpu()
    maps = torch.cat([maps[run.step_indices], maps.mean(0, keepdim=True)])
    most = maps.amax((2, 3))
    scaled = maps / most.clamp(min=1e-9)[..., None, None] * 255
    return {
        "words": list(run.attention_maps.words),
        "height": maps.shape[2],
        "width": maps.shape[3],
        "most": [[round(x, 5) for x in row] for row in most.tolist()],
        "share": [[round(x, 5) for x in row] for row in maps.mean((2, 3)).tolist()],
        "maps": encode_bytes(scaled.round()),
    }


def encode_bytes(values: torch.Tensor) -> str:
    """Values 0 to 255 as base64."""
    return base64.b64encode(values.byte().cpu().contiguous().numpy().tobytes()).decode()


def webp_uri(picture: Image.Image, most: int, quality: int = 80) -> str:
    """A picture as a data URI, no side longer than `most` pixels."""
    small = picture.convert("RGB")
    small.thumbnail((most, most), Image.Resampling.LANCZOS)
    return _uri(small, "webp", quality=quality, method=4)


def png_uri(picture: Image.Image) -> str:
    """A small map as a data URI, every cell kept."""
    return _uri(picture.convert("RGB").quantize(128), "png", optimize=True)


def _uri(picture: Image.Image, kind: str, **how: Any) -> str:
    file = BytesIO()
    picture.save(file, kind, **how)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
