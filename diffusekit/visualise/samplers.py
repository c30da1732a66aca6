"""Samplers (verb `samplers`): noise schedules, the steps that each sampler takes, and the path of the latents.

The path is that of the latents of one prompt from one noise, at unit variance, projected on the two directions
in which the paths of all samplers vary most.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import torch

from .. import defaults, models, schedule
from ..errors import UsageError
from ..options import GenerateOptions
from ..pipeline import stream
from ..sampling import Step
from ..settings import GenerateSettings, validate
from . import plots
from .contact_sheet import INK
from .figure import Visualization
from .forward import SCHEDULES, alpha_bars, noise_levels
from .trace import Trace, TraceRecorder

PROMPT = "a red cat on the grass"
DEFAULT_SAMPLERS = ("ddim", "euler", "euler_a", "dpm++_2m", "dpm++_2m_karras", "unipc")
_DASHES = ("-", "--", "-.", ":", (0, (2, 2)))  # one per schedule, because the last covers the first
_CURVE_POINTS = 100  # of a schedule, in the numbers


@dataclass(frozen=True)
class SamplerStep:
    """One evaluation of the network: its timestep, and alpha and sigma of the latents that it gets."""

    timestep: float
    alpha: float
    sigma: float

    @property
    def ratio(self) -> float:
        """Noise to signal, the sigma of Karras et al. (2022): the same scale for all samplers.

        Pure noise, as at the start of a zero-terminal schedule, has an infinite one.
        """
        return self.sigma / self.alpha if self.alpha else math.inf


def sampler_steps(name: str, config: Mapping[str, Any], steps: int) -> list[SamplerStep]:
    """List the steps that sampler `name` takes on the noise schedule of a model's scheduler `config`.

    The sampler runs over a single zero, so no network is needed. Raises `UsageError` for a number of steps
    that the sampler does not support.
    """
    scheduler = schedule.make_scheduler(name, config)
    schedule.set_steps(scheduler, steps)
    taken = []
    latents = torch.zeros(1, 1, 1, 1)
    for timestep in scheduler.timesteps:
        scheduler.scale_model_input(latents, timestep)
        alpha, sigma = schedule.alpha_sigma(scheduler, timestep)
        taken.append(SamplerStep(float(timestep), alpha, sigma))
        scheduler.step(latents, timestep, latents)
    return taken


class SamplerRecorder:
    """Iterate over the Steps of one image per sampler, all from the same noise.

    Arguments are those of `samplers`. `schedules` maps names to alpha_bar (T,), `steps` maps samplers to
    their steps. `traces` maps samplers to the traces that are finished, and stays empty without `path`.
    """

    def __init__(
        self,
        names: Sequence[str] = (),
        *,
        prompt: str = PROMPT,
        path: bool = True,
        model: str | models.Model = "mini",
        **options: Unpack[GenerateOptions],
    ):
        """Raises `UsageError`."""
        self.names = tuple(dict.fromkeys(names)) or DEFAULT_SAMPLERS
        if "sampler" in options:
            raise UsageError("give samplers by their names, without `sampler`", "samplers(['ddim', 'euler'])")
        settings: dict[str, Any] = {**options, "images": 1}
        if validate(GenerateSettings, {"seed": settings.get("seed")}).seed is None:
            settings["seed"] = secrets.randbelow(2**32)
        each: list[dict[str, Any]] = [{**settings, "prompt": prompt, "sampler": name} for name in self.names]
        for one in each:
            validate(GenerateSettings, one)
        checked = validate(GenerateSettings, settings)
        loaded = models.resolve_for(model, checked)
        own = validate(GenerateSettings, {**settings, "model": loaded.name, "fast": loaded.fast})
        self.settings = defaults.complete(own, loaded)
        config = defaults.noise_config(self.settings, loaded)
        self.schedules = {name: alpha_bars(name, config) for name in SCHEDULES}
        assert self.settings.steps is not None, "the settings are complete"
        self.steps = {name: sampler_steps(name, config, self.settings.steps) for name in self.names}
        self._recorder = TraceRecorder(*(stream(**one, model=model) for one in each if path))

    @property
    def total(self) -> int:
        """The number of Steps of all samplers."""
        return self._recorder.total

    @property
    def traces(self) -> dict[str, Trace]:
        return dict(zip(self.names, self._recorder.traces, strict=False))

    def __iter__(self) -> Iterator[Step]:
        return iter(self._recorder)


def samplers(
    names: Sequence[str] = (),
    *,
    prompt: str = PROMPT,
    path: bool = True,
    model: str | models.Model = "mini",
    **options: Unpack[GenerateOptions],
) -> Visualization:
    """Plot noise schedules, the steps of samplers on the model's own, and the path of the latents.

    `names` are samplers, by default six common ones. With `path`, each generates one image of `prompt` from
    the same noise, drawn from `seed` (random by default). Without, no network runs. `options` are those of
    `generate`. Raises `UsageError`.
    """
    recorder = SamplerRecorder(names, prompt=prompt, path=path, model=model, **options)
    for _ in recorder:
        pass
    return render(recorder)


def render(recorder: SamplerRecorder) -> Visualization:
    """Show what a finished recorder holds."""
    numbers: dict[str, Any] = {
        "model": recorder.settings.model,
        "steps": recorder.settings.steps,
        "schedules": {name: _curve_numbers(curve) for name, curve in recorder.schedules.items()},
        "samplers": {
            name: [{**vars(step), "noise_to_signal": step.ratio if step.alpha else None} for step in steps]
            for name, steps in recorder.steps.items()
        },
    }
    if traces := recorder.traces:
        paths, shares = project_paths(traces)
        first = next(iter(traces.values()))
        numbers["paths"] = {
            "settings": first.result.record.settings.model_dump(mode="json", exclude={"sampler"}),
            "explained_variance": list(shares),
            "points": {name: path.tolist() for name, path in paths.items()},
        }

    def draw() -> Any:
        return _draw(recorder.schedules, recorder.steps, numbers.get("paths"))

    return Visualization(
        numbers,
        still=lambda: plots.to_image(draw()),
        svg=lambda: plots.to_svg(draw()),
        ai_generated=False,
    )


def project_paths(traces: Mapping[str, Trace]) -> tuple[dict[str, torch.Tensor], tuple[float, float]]:
    """Project each trace's latents to (N + 1, 2): N steps and the end. Also return the variance along each axis.

    Latents are compared at unit variance. So samplers that start from the same noise start at the same
    point, whatever scale they work in.
    """
    paths = [
        torch.stack([*(step.x_t_unit for step in trace.steps), trace.steps[-1].x_next.float()]).flatten(1)
        for trace in traces.values()
    ]
    points, shares = plots.project_to_plane(torch.cat(paths))
    return dict(zip(traces, points.split([len(path) for path in paths]), strict=True)), shares


def _curve_numbers(curve: torch.Tensor) -> list[dict[str, float | int | None]]:
    """A noise schedule as numbers, at a hundred timesteps."""
    count = len(curve)
    chosen = sorted({round(i * (count - 1) / (_CURVE_POINTS - 1)) for i in range(_CURVE_POINTS)})
    return [{"timestep": t, **noise_levels(float(curve[t]))} for t in chosen]


# --- drawing ---------------------------------------------------------------------------------


def _draw(
    schedules: Mapping[str, torch.Tensor],
    steps: Mapping[str, Sequence[SamplerStep]],
    paths: Mapping[str, Any] | None,
) -> Any:
    figure = plots.new_figure(15, 9.6)
    axes = figure.subplots(2, 3)
    _draw_schedules(axes[0], schedules)
    _draw_steps(axes[1][0], steps)
    _draw_levels(axes[1][1], steps)
    if paths is not None:
        _draw_paths(axes[1][2], paths)
    else:
        plots.blank_axes(axes[1][2])
    return figure


def _draw_schedules(axes: Any, schedules: Mapping[str, torch.Tensor]) -> None:
    xlabel = "timestep t (noise increases to the right)"
    signal = plots.style_axes(axes[0], "Signal ᾱ", xlabel, "share of the variance")
    noise = plots.style_axes(axes[1], "Noise σ = √(1 − ᾱ)", xlabel, "standard deviation")
    ratio = plots.style_axes(axes[2], "log SNR = log(ᾱ / (1 − ᾱ))", xlabel, "natural logarithm")
    for number, (name, curve) in enumerate(schedules.items()):
        style = plots.line_style(number) | {"linestyle": _DASHES[number], "linewidth": 3.2 if name == "own" else 1.8}
        signal.plot(curve.numpy(), label="the model's own" if name == "own" else name.replace("_", " "), **style)
        noise.plot((1 - curve).sqrt().numpy(), **style)
        logs = [noise_levels(float(alpha_bar))["log_snr"] for alpha_bar in curve]
        ratio.plot([float("nan") if log is None else log for log in logs], **style)
    plots.draw_legend(signal, loc="upper right")


def _draw_steps(axes: Any, steps: Mapping[str, Sequence[SamplerStep]]) -> None:
    plots.style_axes(axes, "Timesteps of each sampler", "timestep, from noise to image")
    for row, taken in enumerate(steps.values()):
        color = plots.COLORS[row % len(plots.COLORS)]
        axes.plot([step.timestep for step in taken], [row] * len(taken), "|", color=color, ms=16, mew=1.6)
    names = [f"{name}\n{len(taken)} evaluations" for name, taken in steps.items()]
    axes.set_yticks(range(len(steps)), names, color=INK, fontsize=plots.SMALL)
    axes.invert_xaxis()
    axes.set_ylim(len(steps) - 0.4, -0.6)


def _draw_levels(axes: Any, steps: Mapping[str, Sequence[SamplerStep]]) -> None:
    plots.style_axes(axes, "Noise left at each step, σ / α", "share of the steps taken", "noise to signal")
    for number, (name, taken) in enumerate(steps.items()):
        shares = [i / len(taken) for i in range(len(taken))]
        ratios = [step.ratio if step.alpha else math.nan for step in taken]  # infinite ones cannot be drawn
        axes.plot(shares, ratios, marker=".", label=name, **_sampler_style(number))
    axes.set_yscale("log")
    plots.draw_legend(axes, loc="lower left")


def _draw_paths(axes: Any, paths: Mapping[str, Any]) -> None:
    shares = [f"{100 * share:.0f} % of the variance" for share in paths["explained_variance"]]
    labels = (f"1st direction, {shares[0]}", f"2nd direction, {shares[1]}")
    plots.style_axes(axes, "Path of the latents", *labels)
    for number, (name, points) in enumerate(paths["points"].items()):
        style = _sampler_style(number)
        axes.plot(*zip(*points, strict=True), marker=".", ms=4, lw=1.4, label=name, **style)
        axes.plot(*points[0], marker="o", ms=11, mfc="none", color=style["color"], clip_on=False)
        axes.plot(*points[-1], marker="s", ms=8, color=style["color"], clip_on=False)
    start = next(iter(paths["points"].values()))[0]
    offset: dict[str, Any] = {"xytext": (-4, 12), "textcoords": "offset points"}
    axes.annotate("start: noise", start, ha="right", fontsize=plots.SMALL, color=INK, **offset)
    axes.plot([], [], "o", mfc="none", color=INK, label="start")
    axes.plot([], [], "s", color=INK, label="end: the image")
    plots.draw_legend(axes, loc="best")


def _sampler_style(number: int) -> dict[str, Any]:
    return plots.line_style(number) | {"linestyle": plots.LINES[number % len(plots.LINES)]}
