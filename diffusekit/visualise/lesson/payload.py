"""The data of the lesson page as plain values: small images, bytes of latents and maps, words and numbers."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import Any, TypedDict

import torch
from PIL import Image

from ... import text
from ...embeddings import LearnedToken
from .. import contact_sheet
from ..attention_maps import AttentionMaps
from ..trace import Trace, TraceStep, rms

MAX_STEPS = 60  # of a longer run, evenly spaced steps are shown
LARGE, SMALL = 384, 256  # pixels: images that fill the stage, and smaller ones
STRIP_HEIGHT = 48  # pixels
PREDICTIONS = ("without", "with", "difference")  # kinds of images that only a guided run has


class RunPayload(TypedDict):
    """What the page's script gets of one run. `attention` is None without attention maps."""

    prompt: str
    numbers: list[dict[str, Any]]
    frames: dict[str, Any]
    latents: dict[str, Any]
    attention: dict[str, Any] | None


class LessonPayload(TypedDict):
    """What the page's script gets."""

    total: int
    guidance: float
    prediction: str
    runs: list[RunPayload]


@dataclass(frozen=True)
class LessonToken:
    """One position of the prompt. `kind` is start, piece, learned, end or padding. A learned token has no id."""

    text: str
    id: int | None
    kind: str


@dataclass(frozen=True, eq=False)
class LessonRun:
    """A trace with what is needed to explain it: the tokenized prompt and the attention maps."""

    trace: Trace
    tokenized: text.TokenizedPrompt
    words: tuple[text.WordSpan, ...]
    learned_tokens: tuple[LearnedToken, ...]
    attention_maps: AttentionMaps | None

    @classmethod
    def of(cls, trace: Trace, learned_tokens: Sequence[LearnedToken], maps: AttentionMaps | None) -> LessonRun:
        tokenized = text.tokenize(trace.model, trace.prompt, learned_tokens)
        words = tuple(text.word_spans(trace.model, tokenized, learned_tokens))
        if maps is not None:
            assert maps.maps.shape[:2] == (len(trace.steps), len(maps.words)), maps.maps.shape
        return cls(trace, tokenized, words, tuple(learned_tokens), maps)

    @property
    def prompt(self) -> str:
        return self.trace.prompt

    @property
    def is_guided(self) -> bool:
        return self.trace.steps[0].guidance is not None

    @cached_property
    def step_indices(self) -> list[int]:
        """The steps on the page: all of them, or evenly spaced ones with the first and the last."""
        total = len(self.trace.steps)
        if total <= MAX_STEPS:
            return list(range(total))
        return [round(i * (total - 1) / (MAX_STEPS - 1)) for i in range(MAX_STEPS)]

    @property
    def steps(self) -> list[TraceStep]:
        return [self.trace.steps[i] for i in self.step_indices]

    @cached_property
    def states(self) -> torch.Tensor:
        """The output of the text encoder, which the U-Net attends to: (T, D)."""
        return text.encode(self.trace.model, [self.prompt], self.learned_tokens).states[0].float().cpu()

    def tokens(self) -> list[LessonToken]:
        """All positions of the prompt."""
        names = text.token_names(self.trace.model, self.tokenized)
        end = self.tokenized.end
        learned = {
            position: word.text
            for word in self.words
            for position in range(word.start, word.stop)
            if self.tokenized.vector_index[position] >= 0
        }
        tokens = []
        for position, (token_id, name) in enumerate(zip(self.tokenized.ids, names, strict=True)):
            if position in learned:
                tokens.append(LessonToken(learned[position], None, "learned"))
            elif position in (0, end):
                kind = "end" if position else "start"
                tokens.append(LessonToken(kind, token_id, kind))
            else:
                kind = "piece" if position < end else "padding"
                tokens.append(LessonToken(name.replace("</w>", ""), token_id, kind))
        return tokens

    def numbers(self) -> dict[str, Any]:
        """The numbers of this run, as plain values."""
        return {
            "prompt": self.prompt,
            "seed": self.trace.result.record.settings.seed,
            "ids": self.tokenized.ids,
            "words": [word.text for word in self.words],
            "cut": self.tokenized.truncated,
            "steps": [finite(step.numbers()) for step in self.trace.steps],
        }


def finite(numbers: dict[str, Any]) -> dict[str, Any]:
    """Replace infinite values, which JSON does not have, by None."""
    return {
        key: value if not isinstance(value, float) or math.isfinite(value) else None for key, value in numbers.items()
    }


def build_payload(runs: Sequence[LessonRun]) -> LessonPayload:
    """Collect the images, latents, maps and numbers of the shown steps of each run."""
    first = runs[0].trace
    return {
        "total": len(first.steps),
        "guidance": first.result.record.settings.guidance_scale or 1.0,
        "prediction": first.model.prediction_type,
        "runs": [
            {
                "prompt": run.prompt,
                "numbers": _step_numbers(run),
                "frames": _frames(run),
                "latents": _latents(run.steps),
                "attention": _attention(run),
            }
            for run in runs
        ],
    }


def _step_numbers(run: LessonRun) -> list[dict[str, Any]]:
    """The numbers of the shown steps with the levels that they lead to, then those of the final image."""
    every = run.trace.steps
    rows = []
    for step in run.steps:
        after = every[step.index + 1] if step.index + 1 < len(every) else None
        alpha, sigma = (after.alpha, after.sigma) if after else (1.0, 0.0)
        rows.append(finite(step.numbers()) | {"alpha": step.alpha, "next_alpha": alpha, "next_sigma": sigma})
    size = rms(every[-1].x_next)
    final = {"step": len(every), "timestep": 0, "alpha_bar": 1.0, "sigma": 0.0, "snr": None, "alpha": 1.0}
    return [*rows, final | {"rms_noised": size, "rms_denoised": size}]


def _frames(run: LessonRun) -> dict[str, Any]:
    """Data URIs for each kind of image, one for each shown step. `image` is the final one."""
    steps = run.steps
    kinds: dict[str, tuple[list[torch.Tensor], int]] = {
        "noised": ([step.x_t_unit for step in steps], LARGE),
        "denoised": ([step.x0 for step in steps], LARGE),
        "noise": ([step.eps for step in steps], SMALL),
    }
    if run.is_guided:
        kinds["without"] = ([step.x0_uncond for step in steps if step.x0_uncond is not None], SMALL)
        kinds["with"] = ([step.x0_cond for step in steps if step.x0_cond is not None], SMALL)
    final = run.trace.result.image
    frames: dict[str, Any] = {"image": webp_uri(final, LARGE)}
    for kind, (tensors, side) in kinds.items():
        decoded = list(run.trace.decode(tensors))
        frames[kind] = [webp_uri(image, side, 62 if kind == "noise" else 80) for image in decoded]
        if kind == "noised":
            frames["strip"] = webp_uri(_strip([*decoded, final]), 10_000, 70)
    if run.is_guided:
        maps = [step.guidance.square().mean(0).sqrt() for step in steps if step.guidance is not None]
        vmax = max(float(m.max()) for m in maps) or 1.0
        frames["difference"] = [png_uri(contact_sheet.apply_colormap((m / vmax).sqrt())) for m in maps]
    return frames


def _strip(images: Sequence[Image.Image]) -> Image.Image:
    """All images in one row, each cropped so that the row fits on a screen."""
    width = max(min(STRIP_HEIGHT, 1200 // len(images)), 10)
    strip = Image.new("RGB", (width * len(images), STRIP_HEIGHT))
    left = (STRIP_HEIGHT - width) // 2
    for i, image in enumerate(images):
        small = image.resize((STRIP_HEIGHT, STRIP_HEIGHT), Image.Resampling.LANCZOS)
        strip.paste(small.crop((left, 0, left + width, STRIP_HEIGHT)), (i * width, 0))
    return strip


def _latents(steps: Sequence[TraceStep]) -> dict[str, Any]:
    """Latents as bytes: 0 to 255 stand for -most to most. The last ones are those of the final image."""
    final = steps[-1].x_next.float()
    kinds = {
        "noised": [*(step.x_t_unit for step in steps), final],
        "denoised": [*(step.x0.float() for step in steps), final],
    }
    most = max(float(x.abs().max()) for tensors in kinds.values() for x in tensors) or 1.0
    channels, height, width = final.shape
    packed = {
        kind: encode_bytes(((torch.stack(tensors) / most + 1) * 127.5).round().clamp(0, 255))
        for kind, tensors in kinds.items()
    }
    return {"channels": channels, "height": height, "width": width, "most": most} | packed


def _attention(run: LessonRun) -> dict[str, Any] | None:
    """Maps as bytes, each scaled by its highest share, which is listed in `most`. The last map is the mean."""
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
    """Encode values from 0 to 255 as base64."""
    return base64.b64encode(values.byte().cpu().contiguous().numpy().tobytes()).decode()


def webp_uri(image: Image.Image, max_side: int, quality: int = 80) -> str:
    """Encode an image as a data URI. No side is longer than `max_side` pixels."""
    small = image.convert("RGB")
    small.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    return _data_uri(small, "webp", quality=quality, method=4)


def png_uri(image: Image.Image) -> str:
    """Encode a small map as a data URI without loss of cells."""
    return _data_uri(image.convert("RGB").quantize(128), "png", optimize=True)


def _data_uri(image: Image.Image, file_format: str, **options: Any) -> str:
    file = BytesIO()
    image.save(file, file_format, **options)
    return f"data:image/{file_format};base64,{base64.b64encode(file.getvalue()).decode()}"
