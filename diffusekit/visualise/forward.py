"""The way into noise: a picture at chosen timesteps, in pixels and in latents, on several noise schedules.

The forward process of DDPM (Ho et al., 2020): x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps,
with one eps for every t. Knows no prompts and no samplers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from .. import images, latents, metadata, models, schedule
from ..device import make_generators
from ..errors import FileRefused, UsageError
from ..pipeline import GeneratedImage
from ..settings import GenerateSettings, validate
from . import contact_sheet
from .contact_sheet import SheetCell
from .figure import Visualization
from .trace import rms

FORMULA = "x_t = √ᾱ_t · x_0 + √(1 − ᾱ_t) · ε"
COLUMNS, FRAMES = 8, 40
_FACTORS = (64, 32, 16, 8, 4, 2)  # of a difference, to be seen

# Betas as their papers have them; `own` and `zero_terminal` are the model's.
SCHEDULES: dict[str, dict[str, Any]] = {
    "own": {},
    "linear": {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02},
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "zero_terminal": {"rescale_betas_zero_snr": True},
}


def alpha_bars(name: str, config: Mapping[str, Any]) -> torch.Tensor:
    """alpha_bar (T,) of every timestep of a noise schedule, T as in a model's scheduler `config`.

    `own` is the model's; `linear` DDPM's (Ho et al., 2020); `scaled_linear` Stable Diffusion's
    (Rombach et al., 2022); `cosine` of Nichol and Dhariwal (2021); `zero_terminal` the model's, rescaled
    to end in nothing but noise (Lin et al., 2023). Raises `UsageError` for another name.
    """
    known = name.replace("-", "_")
    if known not in SCHEDULES:
        raise UsageError(f"there is no noise schedule {name[:60]!r}", f"there are: {', '.join(SCHEDULES)}")
    changes = SCHEDULES[known]
    if "beta_schedule" in changes:
        changes = {"trained_betas": None, "rescale_betas_zero_snr": False} | changes
    return schedule.make_scheduler("ddim", {**config, **changes}).alphas_cumprod.double()


def noise_levels(alpha_bar: float) -> dict[str, float | None]:
    """A noise level in numbers; what is infinite is None. The logarithm is the natural one."""
    noise = 1 - alpha_bar
    snr = alpha_bar / noise if noise > 0 else None
    return {
        "alpha_bar": alpha_bar,
        "sigma": math.sqrt(noise),
        "snr": snr,
        "log_snr": math.log(snr) if snr else None,
    }


@dataclass(frozen=True, eq=False)
class _Subject:
    """A picture x_0 (1, 3, H, W), its latents z_0 (1, C, h, w), and the noise of each."""

    model: models.Model
    x0: torch.Tensor
    z0: torch.Tensor
    pixel_noise: torch.Tensor
    latent_noise: torch.Tensor

    def pixels(self, alpha_bar: float) -> torch.Tensor:
        return _mixed(self.x0, self.pixel_noise, alpha_bar)

    def latents(self, alpha_bar: float) -> torch.Tensor:
        return _mixed(self.z0, self.latent_noise, alpha_bar)

    def seen(self, alpha_bar: float) -> tuple[Image.Image, Image.Image, Image.Image]:
        """x_t as pixels, z_t decoded to pixels, and the channels of z_t."""
        z = self.latents(alpha_bar)
        return (
            images.to_pil(self.pixels(alpha_bar))[0],
            images.to_pil(latents.decode(self.model, z))[0],
            contact_sheet.channel_grid(z[0], self.model.native_size),
        )


def _mixed(x0: torch.Tensor, eps: torch.Tensor, alpha_bar: float) -> torch.Tensor:
    return alpha_bar**0.5 * x0 + (1 - alpha_bar) ** 0.5 * eps


def noise(
    picture: Path | str | Image.Image | GeneratedImage,
    *,
    at: Sequence[int] | None = None,
    schedules: Sequence[str] = ("own",),
    seed: int = 0,
    **settings: Any,
) -> Visualization:
    """Show how noise takes a picture away, and what the VAE alone loses of it.

    `picture` is a file, a PIL picture or one that `generate` made; its middle square is taken. `at` are
    timesteps, eight spread evenly without it; `schedules` are names in `SCHEDULES`. The noise is drawn
    by `seed`, the same at every timestep and on every schedule. `settings` are `model`, `device` and
    `dtype` of `generate`. Raises `UsageError` for a timestep or schedule that does not exist,
    `FileRefused` for what is not one still picture.
    """
    own = validate(GenerateSettings, settings | {"seed": seed})
    opened, record = _opened(picture)
    model = models.load(own.model, own.device, own.dtype)
    if not schedules:
        raise UsageError("there is no noise schedule to show", f"there are: {', '.join(SCHEDULES)}")
    curves = {n.replace("-", "_"): alpha_bars(n, model.scheduler_config) for n in schedules}
    count = len(next(iter(curves.values())))
    times = _timesteps(at, count)
    subject = _subject(model, opened, seed)
    lost = _Lost(subject)
    numbers = {
        "model": own.model,
        "seed": seed,
        "formula": FORMULA,
        "side": model.native_size,
        "timesteps": count,
        "schedules": {name: [_row(subject, t, float(curve[t])) for t in times] for name, curve in curves.items()},
        "vae": lost.numbers,
    }
    return Visualization(
        numbers,
        still=lambda: _sheet(subject, curves, times, lost),
        film=lambda: _film(subject, curves),
        record=record,
    )


def _opened(
    picture: Path | str | Image.Image | GeneratedImage,
) -> tuple[Image.Image, metadata.Record | None]:
    """An upright RGB picture and what it says of how it was made."""
    if isinstance(picture, GeneratedImage):
        return picture.image, picture.record
    if isinstance(picture, Image.Image):
        return images.to_rgb(picture), None
    path = Path(picture)
    with images.open_image(path) as found:
        if (frames := getattr(found, "n_frames", 1)) > 1:
            raise FileRefused(
                f"{path} is an animated picture of {frames} frames, a still one is wanted",
                "save one of its frames as PNG",
            )
        return images.to_rgb(found), metadata.read(path).record


def _timesteps(at: Sequence[int] | None, count: int) -> list[int]:
    """Those asked for, each once and in order; or evenly from the first to the last."""
    if at is None or not len(at):
        return _spread(COLUMNS, count)
    for t in at:
        if not 0 <= t < count:
            raise UsageError(f"there is no timestep {t}", f"the model's timesteps are 0 to {count - 1}")
    return sorted(set(at))


def _spread(wanted: int, count: int) -> list[int]:
    if count < 2:
        return [0]
    return sorted({round(i * (count - 1) / (wanted - 1)) for i in range(wanted)})


def _subject(model: models.Model, picture: Image.Image, seed: int) -> _Subject:
    x0 = images.to_tensor(images.crop_square(picture, model.native_size))[None]
    z0 = latents.encode(model, x0).cpu()
    draws = make_generators([seed, seed])  # latents get the noise that a picture of this seed starts from
    return _Subject(
        model,
        x0,
        z0,
        latents.noise(tuple(x0.shape[1:]), draws[:1]),  # type: ignore[arg-type]
        latents.noise(tuple(z0.shape[1:]), draws[1:]),  # type: ignore[arg-type]
    )


def _row(subject: _Subject, timestep: int, alpha_bar: float) -> dict[str, float | int | None]:
    """A timestep in numbers; the rms are those of x_t in pixels ([-1, 1], not clipped) and in latents."""
    return {
        "timestep": timestep,
        **noise_levels(alpha_bar),
        "rms_pixels": rms(subject.pixels(alpha_bar)),
        "rms_latents": rms(subject.latents(alpha_bar)),
    }


class _Lost:
    """What encoding and decoding alone take away, measured on 8-bit pixels."""

    def __init__(self, subject: _Subject):
        self.before = images.to_pil(subject.x0)[0]
        self.after = images.to_pil(latents.decode(subject.model, subject.z0))[0]
        self.difference = images.to_tensor(self.after) - images.to_tensor(self.before)
        error = float((self.difference.double() * 127.5).square().mean())
        strongest = float(self.difference.abs().flatten().quantile(0.99))
        self.factor = next((f for f in _FACTORS if f * strongest <= 1), 1)
        self.numbers = {
            "psnr": 10 * math.log10(255**2 / error) if error else None,
            "mean_absolute_difference": float(self.difference.abs().mean() * 127.5),
            "factor": self.factor,
            "latents_mean": float(subject.z0.mean()),
            "latents_std": float(subject.z0.std()),
        }

    def cells(self, subject: _Subject) -> list[SheetCell]:
        psnr = self.numbers["psnr"]
        amplified = images.to_pil((self.difference * self.factor)[None])[0]
        mean = self.numbers["mean_absolute_difference"]
        return [
            SheetCell(self.before, "the picture"),
            SheetCell(contact_sheet.channel_grid(subject.z0[0], subject.model.native_size), "encoded"),
            SheetCell(self.after, "decoded again" + (f"\nPSNR {psnr:.1f} dB" if psnr else "")),
            SheetCell(amplified, f"difference × {self.factor}\nmean {mean:.1f} of 255"),
        ]


def _side(subject: _Subject) -> int:
    """Pixels of a cell: as few as can be without averaging the noise away."""
    return min(max(subject.model.native_size, 128), 256)


def _sheet(subject: _Subject, curves: Mapping[str, torch.Tensor], times: Sequence[int], lost: _Lost) -> Image.Image:
    rows: list[list[SheetCell]] = []
    labels: list[str] = []
    for name, curve in curves.items():
        found = [subject.seen(float(curve[t])) for t in times]
        captions = [_caption(t, float(curve[t])) for t in times]
        rows.append([SheetCell(f[0], c) for f, c in zip(found, captions, strict=True)])
        rows += [[SheetCell(f[i]) for f in found] for i in (1, 2)]
        before = f"{name}:\n" if len(curves) > 1 else ""
        labels += [
            f"{before}noise\non pixels",
            f"{before}noise on\nlatents,\ndecoded",
            f"{before}the latents\nthemselves",
        ]
    rows.append(lost.cells(subject))
    labels.append("what the VAE\nalone loses")
    return contact_sheet.render_sheet(rows, side=_side(subject), title=FORMULA, labels=labels)


def _caption(timestep: int, alpha_bar: float) -> str:
    return f"t {timestep}\n" + "\n".join(_lines(alpha_bar))


def _lines(alpha_bar: float) -> list[str]:
    found = noise_levels(alpha_bar)
    snr, log = found["snr"], found["log_snr"]
    small = f"{alpha_bar:.1e}" if 0 < alpha_bar < 5e-5 else f"{alpha_bar:.4f}"
    return [
        f"ᾱ {small}",
        f"σ {found['sigma']:.4f}",
        f"SNR {'∞' if snr is None else f'{snr:.3g}'}",
        f"log SNR {'−∞' if log is None else f'{log:.2f}'.replace('-', '−')}",
    ]


def _film(subject: _Subject, curves: Mapping[str, torch.Tensor]) -> Iterator[Image.Image]:
    """One frame for each of forty timesteps, upwards: pixels, decoded latents, latents; a row a schedule."""
    count = len(next(iter(curves.values())))
    side = max(_side(subject), 256 if len(curves) == 1 else 128)
    for t in _spread(FRAMES, count):
        rows = []
        for curve in curves.values():
            alpha_bar = float(curve[t])
            names = ("on pixels", "on latents, decoded", "the latents")
            says = _lines(alpha_bar)
            below = (f"t {t}", f"{says[0]}   {says[1]}", f"{says[2]}   {says[3]}")
            seen = subject.seen(alpha_bar)
            rows.append([SheetCell(p, f"{n}\n{b}") for p, n, b in zip(seen, names, below, strict=True)])
        labels = list(curves) if len(curves) > 1 else ()
        yield contact_sheet.render_sheet(rows, side=side, title=FORMULA, labels=labels)
