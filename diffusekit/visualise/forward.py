"""The forward process (verb `noise`): an image at chosen timesteps, in pixels and in latents, on any noise schedule.

DDPM (Ho et al., 2020): x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps, with one eps for every t.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
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
_AMPLIFICATIONS = (64, 32, 16, 8, 4, 2)  # of a difference that is too faint to see

# Betas as in the papers. `own` and `zero_terminal` start from the model's.
SCHEDULES: dict[str, dict[str, Any]] = {
    "own": {},
    "linear": {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02},
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "zero_terminal": {"rescale_betas_zero_snr": True},
}


def alpha_bars(name: str, config: Mapping[str, Any]) -> torch.Tensor:
    """Compute alpha_bar (T,) of a noise schedule. T is taken from a model's scheduler `config`.

    `own` is the model's schedule. `linear` is DDPM's (Ho et al., 2020), `scaled_linear` Stable Diffusion's
    (Rombach et al., 2022), `cosine` that of Nichol and Dhariwal (2021). `zero_terminal` is the model's,
    rescaled to end in pure noise (Lin et al., 2023). Raises `UsageError` for another name.
    """
    key = name.replace("-", "_")
    if key not in SCHEDULES:
        raise UsageError(f"unknown noise schedule {name[:60]!r}", f"noise schedules: {', '.join(SCHEDULES)}")
    changes = SCHEDULES[key]
    if "beta_schedule" in changes:
        changes = {"trained_betas": None, "rescale_betas_zero_snr": False} | changes
    return schedule.make_scheduler("ddim", {**config, **changes}).alphas_cumprod.double()


def noise_levels(alpha_bar: float) -> dict[str, float | None]:
    """Express a noise level in four ways. Infinite values are None. The logarithm is natural."""
    variance = 1 - alpha_bar
    snr = alpha_bar / variance if variance > 0 else None
    return {
        "alpha_bar": alpha_bar,
        "sigma": math.sqrt(variance),
        "snr": snr,
        "log_snr": math.log(snr) if snr else None,
    }


@dataclass(frozen=True, eq=False)
class VaeLoss:
    """What encoding and decoding alone change, measured on 8-bit pixels.

    `amplification` is the factor that makes the difference visible. `psnr` is None if nothing is lost.
    """

    before: Image.Image
    after: Image.Image
    difference: torch.Tensor
    psnr: float | None
    mean_absolute: float
    amplification: int

    @classmethod
    def of(cls, model: models.Model, x0: torch.Tensor, z0: torch.Tensor) -> VaeLoss:
        before, after = images.to_pil(x0)[0], images.to_pil(latents.decode(model, z0))[0]
        difference = images.to_tensor(after) - images.to_tensor(before)
        squared_error = float((difference.double() * 127.5).square().mean())
        strongest = float(difference.abs().flatten().quantile(0.99))
        return cls(
            before,
            after,
            difference,
            psnr=10 * math.log10(255**2 / squared_error) if squared_error else None,
            mean_absolute=float(difference.abs().mean() * 127.5),
            amplification=next((factor for factor in _AMPLIFICATIONS if factor * strongest <= 1), 1),
        )


@dataclass(frozen=True, eq=False)
class ForwardProcess:
    """An image, its latents, and one noise tensor for each.

    `x0` and `pixel_noise` are (1, 3, H, W), `z0` and `latent_noise` are (1, C, h, w). `schedules` maps names
    to alpha_bar (T,). `timesteps` are those shown in a sheet. `record` says how the image was made.
    """

    model: models.Model
    seed: int
    x0: torch.Tensor
    z0: torch.Tensor
    pixel_noise: torch.Tensor
    latent_noise: torch.Tensor
    schedules: Mapping[str, torch.Tensor]
    timesteps: Sequence[int]
    record: metadata.Record | None = None

    def x_t(self, alpha_bar: float) -> torch.Tensor:
        """Noisy pixels."""
        return _add_noise(self.x0, self.pixel_noise, alpha_bar)

    def z_t(self, alpha_bar: float) -> torch.Tensor:
        """Noisy latents."""
        return _add_noise(self.z0, self.latent_noise, alpha_bar)

    def images_at(self, alpha_bar: float) -> tuple[Image.Image, Image.Image, Image.Image]:
        """x_t as pixels, z_t decoded to pixels, and the channels of z_t."""
        z_t = self.z_t(alpha_bar)
        return (
            images.to_pil(self.x_t(alpha_bar))[0],
            images.to_pil(latents.decode(self.model, z_t))[0],
            contact_sheet.channel_grid(z_t[0], self.model.native_size),
        )

    @cached_property
    def vae_loss(self) -> VaeLoss:
        return VaeLoss.of(self.model, self.x0, self.z0)


def _add_noise(x0: torch.Tensor, eps: torch.Tensor, alpha_bar: float) -> torch.Tensor:
    return alpha_bar**0.5 * x0 + (1 - alpha_bar) ** 0.5 * eps


def noise(
    image: Path | str | Image.Image | GeneratedImage,
    *,
    at: Sequence[int] | None = None,
    schedules: Sequence[str] = ("own",),
    seed: int = 0,
    model: str | models.Model = "mini",
    device: str = "auto",
    dtype: str = "auto",
) -> Visualization:
    """Show how noise covers an image, and what the VAE alone loses of it.

    `image` is a file, a PIL image or one that `generate` made. It is cropped to its central square. `at` are
    timesteps, by default eight that are evenly spaced. `schedules` are names from `SCHEDULES`. The noise is
    drawn from `seed` and is the same at every timestep and on every schedule. Raises `UsageError` for an unknown
    timestep or schedule, `FileRefused` for a file that is not a single still image.
    """
    return render(add_noise(image, at=at, schedules=schedules, seed=seed, model=model, device=device, dtype=dtype))


def add_noise(
    image: Path | str | Image.Image | GeneratedImage,
    *,
    at: Sequence[int] | None = None,
    schedules: Sequence[str] = ("own",),
    seed: int = 0,
    model: str | models.Model = "mini",
    device: str = "auto",
    dtype: str = "auto",
) -> ForwardProcess:
    """Encode an image and draw its noise. Arguments and errors are those of `noise`."""
    own = validate(GenerateSettings, {"seed": seed, "device": device, "dtype": dtype})
    opened, record = _open(image)
    loaded = models.resolve(model, own.device, own.dtype)
    if not schedules:
        raise UsageError("expected at least one noise schedule", f"noise schedules: {', '.join(SCHEDULES)}")
    curves = {name.replace("-", "_"): alpha_bars(name, loaded.scheduler_config) for name in schedules}
    timesteps = _timesteps(at, len(next(iter(curves.values()))))
    x0 = images.to_tensor(images.crop_square(opened, loaded.native_size))[None]
    z0 = latents.encode(loaded, x0).cpu()
    generators = make_generators([seed, seed])  # the latents get the noise that an image of this seed starts from
    return ForwardProcess(
        loaded,
        seed,
        x0,
        z0,
        pixel_noise=latents.noise(tuple(x0.shape[1:]), generators[:1]),  # type: ignore[arg-type]
        latent_noise=latents.noise(tuple(z0.shape[1:]), generators[1:]),  # type: ignore[arg-type]
        schedules=curves,
        timesteps=timesteps,
        record=record,
    )


def render(process: ForwardProcess) -> Visualization:
    """Show a forward process."""
    return Visualization(
        _numbers(process),
        still=lambda: _still(process),
        film=lambda: _film(process),
        record=process.record,
    )


def _open(image: Path | str | Image.Image | GeneratedImage) -> tuple[Image.Image, metadata.Record | None]:
    """An upright RGB image, and its record if it has one."""
    if isinstance(image, GeneratedImage):
        return image.image, image.record
    if isinstance(image, Image.Image):
        return images.to_rgb(image), None
    path = Path(image)
    with images.open_image(path) as opened:
        if (frames := getattr(opened, "n_frames", 1)) > 1:
            raise FileRefused(
                f"{path} is an animation of {frames} frames, expected a still image",
                "save one of its frames as PNG",
            )
        return images.to_rgb(opened), metadata.read(path).record


def _timesteps(at: Sequence[int] | None, count: int) -> list[int]:
    """The requested timesteps, sorted and without duplicates. By default eight from the first to the last."""
    if at is None or not len(at):
        return _evenly_spaced(COLUMNS, count)
    for t in at:
        if not 0 <= t < count:
            raise UsageError(f"timestep {t} is out of range", f"the model's timesteps are 0 to {count - 1}")
    return sorted(set(at))


def _evenly_spaced(points: int, count: int) -> list[int]:
    if count < 2:
        return [0]
    return sorted({round(i * (count - 1) / (points - 1)) for i in range(points)})


def _numbers(process: ForwardProcess) -> dict[str, Any]:
    """Every number that is shown. Pixels are in [-1, 1] and not clipped."""
    loss = process.vae_loss
    return {
        "model": process.model.name,
        "seed": process.seed,
        "formula": FORMULA,
        "side": process.model.native_size,
        "timesteps": len(next(iter(process.schedules.values()))),
        "schedules": {
            name: [
                {
                    "timestep": t,
                    **noise_levels(float(curve[t])),
                    "rms_pixels": rms(process.x_t(float(curve[t]))),
                    "rms_latents": rms(process.z_t(float(curve[t]))),
                }
                for t in process.timesteps
            ]
            for name, curve in process.schedules.items()
        },
        "vae": {
            "psnr": loss.psnr,
            "mean_absolute_difference": loss.mean_absolute,
            "factor": loss.amplification,
            "latents_mean": float(process.z0.mean()),
            "latents_std": float(process.z0.std()),
        },
    }


# --- drawing ---------------------------------------------------------------------------------


def _cell_side(process: ForwardProcess) -> int:
    """The width of a cell in pixels: small, but large enough that scaling does not average the noise away."""
    return min(max(process.model.native_size, 128), 256)


def _still(process: ForwardProcess) -> Image.Image:
    rows: list[list[SheetCell]] = []
    labels: list[str] = []
    for name, curve in process.schedules.items():
        columns = [process.images_at(float(curve[t])) for t in process.timesteps]
        captions = [f"t {t}\n" + "\n".join(_level_lines(float(curve[t]))) for t in process.timesteps]
        rows.append([SheetCell(c[0], caption) for c, caption in zip(columns, captions, strict=True)])
        rows += [[SheetCell(c[i]) for c in columns] for i in (1, 2)]
        prefix = f"{name}:\n" if len(process.schedules) > 1 else ""
        labels += [f"{prefix}noise\non pixels", f"{prefix}noise on\nlatents,\ndecoded", f"{prefix}latents,\nchannels"]
    rows.append(_vae_cells(process))
    labels.append("loss of\nthe VAE")
    return contact_sheet.render_sheet(rows, side=_cell_side(process), title=FORMULA, labels=labels)


def _vae_cells(process: ForwardProcess) -> list[SheetCell]:
    loss = process.vae_loss
    amplified = images.to_pil((loss.difference * loss.amplification)[None])[0]
    channels = contact_sheet.channel_grid(process.z0[0], process.model.native_size)
    return [
        SheetCell(loss.before, "original"),
        SheetCell(channels, "encoded"),
        SheetCell(loss.after, "decoded" + (f"\nPSNR {loss.psnr:.1f} dB" if loss.psnr else "")),
        SheetCell(amplified, f"difference × {loss.amplification}\nmean {loss.mean_absolute:.1f} of 255"),
    ]


def _level_lines(alpha_bar: float) -> list[str]:
    levels = noise_levels(alpha_bar)
    snr, log_snr = levels["snr"], levels["log_snr"]
    return [
        f"ᾱ {alpha_bar:.1e}" if 0 < alpha_bar < 5e-5 else f"ᾱ {alpha_bar:.4f}",
        f"σ {levels['sigma']:.4f}",
        f"SNR {'∞' if snr is None else f'{snr:.3g}'}",
        f"log SNR {'−∞' if log_snr is None else f'{log_snr:.2f}'.replace('-', '−')}",
    ]


def _film(process: ForwardProcess) -> Iterator[Image.Image]:
    """Forty frames from the first timestep to the last: pixels, decoded latents and channels, one row per schedule."""
    schedules = process.schedules
    side = max(_cell_side(process), 256 if len(schedules) == 1 else 128)
    for t in _evenly_spaced(FRAMES, len(next(iter(schedules.values())))):
        rows = []
        for curve in schedules.values():
            alpha_bar = float(curve[t])
            lines = _level_lines(alpha_bar)
            names = ("noise on pixels", "noise on latents, decoded", "latents, channels")
            values = (f"t {t}", f"{lines[0]}   {lines[1]}", f"{lines[2]}   {lines[3]}")
            cells = zip(process.images_at(alpha_bar), names, values, strict=True)
            rows.append([SheetCell(image, f"{name}\n{value}") for image, name, value in cells])
        labels = list(schedules) if len(schedules) > 1 else ()
        yield contact_sheet.render_sheet(rows, side=side, title=FORMULA, labels=labels)
