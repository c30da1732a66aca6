"""Samplers as plots: the steps are those that are taken, and the paths start and end at the right latents."""

import dataclasses
import json
import sys
import xml.etree.ElementTree as ElementTree

import pytest
import torch
from PIL import Image

from diffusekit import SAMPLERS, visualise
from diffusekit.cli.main import run
from diffusekit.errors import UsageError
from diffusekit.schedule import make_scheduler
from diffusekit.visualise import plots
from diffusekit.visualise.samplers import SamplerRecorder, project_paths, sampler_steps, samplers

VARIANCE_PRESERVING = ("ddim", "dpm++_2m", "unipc")
SIGMA_SPACE = ("euler", "heun")


@pytest.fixture(scope="module")
def traces():
    return {
        name: visualise.record_trace("a red cat", seed=3, steps=4, sampler=name)
        for name in (*VARIANCE_PRESERVING, *SIGMA_SPACE, "euler_a")
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
def test_steps_without_a_network_are_those_with_one(name, mini):
    trace = visualise.record_trace("a cat", seed=1, steps=3, sampler=name, guidance_scale=1)
    taken = sampler_steps(name, mini.scheduler_config, 3)
    assert [int(step.timestep) for step in taken] == [m.timestep for m in trace.steps]
    assert [step.alpha for step in taken] == pytest.approx([m.alpha for m in trace.steps])
    assert [step.sigma for step in taken] == pytest.approx([m.sigma for m in trace.steps])


def test_steps_of_ddim_are_those_of_the_schedule(mini):
    curve = make_scheduler("ddim", mini.scheduler_config).alphas_cumprod
    for step in sampler_steps("ddim", mini.scheduler_config, 5):
        bar = float(curve[int(step.timestep)])
        assert step.alpha**2 == pytest.approx(bar) and step.alpha**2 + step.sigma**2 == (pytest.approx(1))
        assert step.ratio == pytest.approx(((1 - bar) / bar) ** 0.5)


def test_samplers_of_one_kind_start_at_one_point_and_each_ends_at_its_image(traces):
    paths, shares = project_paths(traces)
    extent = float(torch.cat(list(paths.values())).abs().max())
    for kind in (VARIANCE_PRESERVING, (*SIGMA_SPACE, "euler_a")):
        for name in kind:
            assert float((paths[name][0] - paths[kind[0]][0]).norm()) < 1e-3 * extent
    # the two kinds differ only by the last of the signal, which is nearly nothing on mini
    assert float((paths["ddim"][0] - paths["euler"][0]).norm()) < 0.02 * extent
    for name, trace in traces.items():
        assert paths[name].shape == (len(trace.steps) + 1, 2)
    ends = [trace.steps[-1].x_next.float().flatten() for trace in traces.values()]
    seen = torch.stack([path[-1] for path in paths.values()])
    true = torch.cdist(torch.stack(ends), torch.stack(ends)).double()
    assert bool((torch.cdist(seen, seen) <= true + 1e-3).all())  # a projection never lengthens
    assert float(torch.cdist(seen, seen).max()) > 0.1 * extent  # and euler_a went elsewhere
    assert 0.5 < sum(shares) <= 1 and shares[0] >= shares[1] > 0


def test_the_projection_keeps_distances_of_points_that_lie_in_a_plane():
    points = torch.randn(9, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    turned = torch.linalg.qr(torch.randn(30, 2, dtype=torch.float64)).Q
    seen, shares = plots.project_to_plane(points @ turned.T + 5)
    assert torch.cdist(seen, seen) == pytest.approx(torch.cdist(points, points))
    assert sum(shares) == pytest.approx(1)
    assert float((seen[:, 0] * seen[:, 1]).sum()) == pytest.approx(0, abs=1e-9)


def test_the_projection_of_one_point_and_of_a_line():
    one, none = plots.project_to_plane(torch.ones(1, 5))
    assert one.tolist() == [[0, 0]] and none == (0, 0)
    line, shares = plots.project_to_plane(torch.arange(4.0)[:, None] * torch.ones(1, 7))
    assert shares == (pytest.approx(1), 0) and line[:, 1].abs().max() == 0
    assert float(line[0, 0]) == pytest.approx(1.5 * 7**0.5)


@pytest.mark.slow
def test_without_a_path_no_image_is_generated(monkeypatch):
    monkeypatch.setattr(
        sys.modules["diffusekit.visualise.samplers"], "stream", lambda *_, **__: pytest.fail("an image was started")
    )
    figure = samplers(["ddim"], path=False, steps=3)
    assert "paths" not in figure.numbers
    assert len(figure.numbers["samplers"]["ddim"]) == 3
    assert figure.still().width > 1000


@pytest.mark.slow
def test_every_format_can_be_saved(tmp_path):
    figure = samplers(["ddim", "euler"], steps=2, seed=1)
    with Image.open(figure.save(tmp_path / "s.png")) as drawn:
        assert drawn.width > 1000
    first = figure.save(tmp_path / "s.svg").read_text()
    ElementTree.fromstring(first)
    assert "<text" not in first and "http" not in first.split("<defs>", 1)[1].replace(
        "http://www.w3.org/1999/xlink", ""
    )
    assert figure.save(tmp_path / "again.svg").read_text() == first
    numbers = json.loads(figure.save(tmp_path / "s.json").read_text())
    assert set(numbers["schedules"]) == {
        "own",
        "linear",
        "scaled_linear",
        "cosine",
        "zero_terminal",
    }
    assert [len(p) for p in numbers["paths"]["points"].values()] == [3, 3]
    assert numbers["paths"]["settings"]["seed"] == 1


def test_samplers_share_a_random_seed():
    recorder = SamplerRecorder(["ddim", "dpm++_2m"], steps=1)
    assert sum(1 for _ in recorder) == recorder.total == 2
    seeds = [trace.result.record.settings.seed for trace in recorder.traces.values()]
    assert len(seeds) == 2 and seeds[0] == seeds[1]


def test_bad_input(capsys):
    with pytest.raises(UsageError, match="did you mean euler"):
        samplers(["eulr"])
    with pytest.raises(UsageError):
        samplers(["ddim"], sampler="euler")
    assert run(["visualise", "samplers", "eulr"]) == 2
    assert "did you mean" in capsys.readouterr().err
    assert run(["visualise", "samplers", "-o", "film.webp"]) == 2
    assert ".svg" in capsys.readouterr().err
    assert run(["visualise", "samplers", "ddim", "--no-path", "--steps", "0"]) == 2


@pytest.mark.slow
def test_the_command(capsys):
    assert run(["visualise", "samplers", "ddim", "--steps", "2", "--no-path", "-o", "s.svg"]) == 0
    assert capsys.readouterr().out == "s.svg\n"
    words = ["visualise", "samplers", "heun", "--steps", "2", "--seed", "5", "--prompt", "a dog"]
    assert run([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["paths"]["settings"]["prompt"] == "a dog" and len(found["samplers"]["heun"]) == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_zero_terminal_schedule_starts_in_pure_noise(name, mini):
    config = mini.scheduler_config | {"rescale_betas_zero_snr": True}
    steps = sampler_steps(name, config, 3)
    assert steps[0].ratio > 20 and all(step.ratio > 0 for step in steps)
    figure = samplers([name], path=False, steps=3, model=dataclasses.replace(mini, scheduler_config=config))
    (numbers,) = figure.numbers["samplers"].values()
    json.dumps(numbers, allow_nan=False)
    assert (numbers[0]["noise_to_signal"] is None) == (name in ("ddim", "ddpm", "lcm"))
    assert figure.still is not None and figure.still().width > 1000
