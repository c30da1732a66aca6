"""How samplers go: noise schedules, the steps that each sampler takes on them, and the way of the latents.

The way is that of the latents of one prompt from one noise, at unit variance, seen in the two directions
in which all samplers together spread most. Knows no pixels.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .. import models, schedule
from ..errors import UsageError
from ..pipeline import stream
from ..settings import GenerateSettings, validate
from . import plots
from .contact_sheet import INK
from .figure import Visualization
from .forward import SCHEDULES, alpha_bars, noise_levels
from .trace import Trace, TraceRecorder

PROMPT = "a red cat on the grass"
DEFAULT_SAMPLERS = ("ddim", "euler", "euler_a", "dpm++_2m", "dpm++_2m_karras", "unipc")
_DASHES = ("-", "--", "-.", ":", (0, (2, 2)))  # a schedule each; the last lies upon the first
_POINTS = 100  # of a schedule's curve in the numbers


@dataclass(frozen=True)
class SamplerStep:
    """One evaluation of the network: its timestep, and alpha and sigma of the latents it is shown."""

    timestep: float
    alpha: float
    sigma: float

    @property
    def ratio(self) -> float:
        """Noise to signal, the sigma of Karras et al. (2022): the same scale for all samplers."""
        return self.sigma / self.alpha


def sampler_steps(name: str, config: Mapping[str, Any], steps: int) -> list[SamplerStep]:
    """The steps that the sampler `name` takes on the noise schedule of a model's scheduler `config`.

    Found by letting it walk over a single zero, which needs no network. Raises `UsageError` for a
    number of steps that it cannot take.
    """
    scheduler = schedule.make_scheduler(name, config)
    try:
        scheduler.set_timesteps(steps)
    except ValueError as error:
        raise UsageError(f"{name} cannot take {steps} steps: {error}", "use fewer steps") from None
    taken = []
    latents = torch.zeros(1, 1, 1, 1)
    for timestep in scheduler.timesteps:
        scheduler.scale_model_input(latents, timestep)
        alpha, sigma = schedule.alpha_sigma(scheduler, timestep)
        taken.append(SamplerStep(float(timestep), alpha, sigma))
        scheduler.step(latents, timestep, latents)
    return taken


def samplers(
    names: Sequence[str] = (),
    *,
    prompt: str = PROMPT,
    path: bool = True,
    watch: Callable[[TraceRecorder], object] | None = None,
    **settings: Any,
) -> Visualization:
    """Plot noise schedules, the steps of samplers on the model's own, and the way of the latents.

    `names` are samplers, six well-known ones without. With `path` each makes one picture of `prompt`
    from the same noise (`seed`, by chance if there is none); without, no network runs. `watch` is given
    every Recording and runs it to its end. `settings` are those of `generate`. Raises `UsageError`.
    """
    names = tuple(dict.fromkeys(names)) or DEFAULT_SAMPLERS
    if "sampler" in settings:
        raise UsageError("samplers are given by their names", "samplers(['ddim', 'euler'])")
    for name in names:
        validate(GenerateSettings, settings | {"prompt": prompt, "sampler": name, "images": 1})
    own = validate(GenerateSettings, settings)
    config = models.load(own.model, own.device, own.dtype, fast=own.fast).scheduler_config
    curves = {name: alpha_bars(name, config) for name in SCHEDULES}
    taken = {name: sampler_steps(name, config, own.steps) for name in names}
    numbers: dict[str, Any] = {
        "model": own.model,
        "steps": own.steps,
        "schedules": {name: _curve(curve) for name, curve in curves.items()},
        "samplers": {name: _told(found) for name, found in taken.items()},
    }
    ways: dict[str, torch.Tensor] = {}
    if path:
        traces = _traces(names, prompt, watch, settings)
        ways, shares = project_paths(traces)
        numbers["paths"] = {
            "settings": traces[names[0]].result.record.settings.model_dump(mode="json", exclude={"sampler"}),
            "explained_variance": list(shares),
            "points": {name: way.tolist() for name, way in ways.items()},
        }
    return Visualization(
        numbers,
        still=lambda: plots.to_image(_drawn(curves, taken, ways, numbers)),
        svg=lambda: plots.to_svg(_drawn(curves, taken, ways, numbers)),
        ai_generated=False,
    )


def _traces(
    names: Sequence[str], prompt: str, watch: Callable[[TraceRecorder], object] | None, settings: dict[str, Any]
) -> dict[str, Trace]:
    """One trace a sampler, all from the noise of one seed."""
    if settings.get("seed") is None:
        settings = settings | {"seed": secrets.randbelow(2**32)}
    found = {}
    for name in names:
        recording = TraceRecorder(stream(prompt, **settings | {"sampler": name, "images": 1}))
        if watch is None:
            for _ in recording:
                pass
        else:
            watch(recording)
        found[name] = recording.traces[0]
    return found


def project_paths(
    traces: Mapping[str, Trace],
) -> tuple[dict[str, torch.Tensor], tuple[float, float]]:
    """The way of each trace's latents (N + 1, 2), N steps and the end; and the variance explained by each axis.

    Latents are compared at unit variance, so samplers that start from the same noise start at the same
    point, whatever scale they work in.
    """
    ways = [
        torch.stack([*(m.x_t_unit for m in t.steps), t.steps[-1].x_next.float()]).flatten(1) for t in traces.values()
    ]
    seen, shares = plots.project_to_plane(torch.cat(ways))
    parts = seen.split([len(way) for way in ways])
    return dict(zip(traces, parts, strict=True)), shares


def _curve(curve: torch.Tensor) -> list[dict[str, float | int | None]]:
    """A noise schedule in numbers, at a hundred timesteps."""
    count = len(curve)
    chosen = sorted({round(i * (count - 1) / (_POINTS - 1)) for i in range(_POINTS)})
    return [{"timestep": t, **noise_levels(float(curve[t]))} for t in chosen]


def _told(taken: Sequence[SamplerStep]) -> list[dict[str, float]]:
    return [{**vars(step), "noise_to_signal": step.ratio} for step in taken]


# --- drawing ---------------------------------------------------------------------------------


def _drawn(
    curves: Mapping[str, torch.Tensor],
    taken: Mapping[str, Sequence[SamplerStep]],
    ways: Mapping[str, torch.Tensor],
    numbers: Mapping[str, Any],
) -> Any:
    figure = plots.new_figure(15, 9.6)
    axes = figure.subplots(2, 3)
    _draw_schedules(axes[0], curves)
    _draw_steps(axes[1][0], taken)
    _draw_levels(axes[1][1], taken)
    if ways:
        _draw_paths(axes[1][2], ways, numbers["paths"])
    else:
        plots.blank_axes(axes[1][2])
    return figure


def _draw_schedules(axes: Any, curves: Mapping[str, torch.Tensor]) -> None:
    across = "timestep t, more noise to the right"
    signal = plots.style_axes(axes[0], "Signal left, ᾱ", across, "share of the variance")
    noise = plots.style_axes(axes[1], "Noise, σ = √(1 − ᾱ)", across, "standard deviation")
    ratio = plots.style_axes(axes[2], "log SNR = log(ᾱ / (1 − ᾱ))", across, "natural logarithm")
    for number, (name, curve) in enumerate(curves.items()):
        look = plots.line_style(number) | {"linestyle": _DASHES[number]}
        look["linewidth"] = 3.2 if name == "own" else 1.8
        label = "the model's own" if name == "own" else name.replace("_", " ")
        signal.plot(curve.numpy(), label=label, **look)
        noise.plot((1 - curve).sqrt().numpy(), **look)
        logs = [noise_levels(float(bar))["log_snr"] for bar in curve]
        ratio.plot([float("nan") if log is None else log for log in logs], **look)
    plots.legend(signal, loc="upper right")


def _draw_steps(axes: Any, taken: Mapping[str, Sequence[SamplerStep]]) -> None:
    plots.style_axes(axes, "Where each sampler stops", "timestep, from noise to picture")
    for row, found in enumerate(taken.values()):
        times = [step.timestep for step in found]
        axes.plot(times, [row] * len(times), "|", color=plots.COLORS[row], ms=16, mew=1.6)
    names = [f"{name}\n{len(found)} evaluations" for name, found in taken.items()]
    axes.set_yticks(range(len(taken)), names, color=INK, fontsize=plots.SMALL)
    axes.invert_xaxis()
    axes.set_ylim(len(taken) - 0.4, -0.6)


def _draw_levels(axes: Any, taken: Mapping[str, Sequence[SamplerStep]]) -> None:
    plots.style_axes(axes, "Noise left at each step, σ / α", "share of the steps taken", "noise to signal")
    for number, (name, found) in enumerate(taken.items()):
        along = [i / len(found) for i in range(len(found))]
        ratios = [step.ratio for step in found]
        axes.plot(along, ratios, marker=".", label=name, **_look(number))
    axes.set_yscale("log")
    plots.legend(axes, loc="lower left")


def _draw_paths(axes: Any, ways: Mapping[str, torch.Tensor], told: Mapping[str, Any]) -> None:
    shares = [f"{100 * share:.0f} % of the variance" for share in told["explained_variance"]]
    plots.style_axes(axes, "The way of the latents", f"1st direction, {shares[0]}", f"2nd direction, {shares[1]}")
    for number, (name, way) in enumerate(ways.items()):
        look = _look(number)
        axes.plot(way[:, 0], way[:, 1], marker=".", ms=4, lw=1.4, label=name, **look)
        axes.plot(*way[0], marker="o", ms=11, mfc="none", color=look["color"], clip_on=False)
        axes.plot(*way[-1], marker="s", ms=8, color=look["color"], clip_on=False)
    start = next(iter(ways.values()))[0]
    axes.annotate(
        "start: noise",
        start.tolist(),
        (-4, 12),
        ha="right",
        textcoords="offset points",
        fontsize=plots.SMALL,
        color=INK,
    )
    axes.plot([], [], "o", mfc="none", color=INK, label="start")
    axes.plot([], [], "s", color=INK, label="end: the picture")
    plots.legend(axes, loc="best")


def _look(number: int) -> dict[str, Any]:
    return plots.line_style(number) | {"linestyle": plots.LINES[number % len(plots.LINES)]}
