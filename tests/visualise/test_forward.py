"""The forward process: its numbers follow the formula, and bad input gives one sentence."""

import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from diffusekit import generate, images, latents, read_metadata
from diffusekit.cli.main import run
from diffusekit.errors import FileRefused, UsageError
from diffusekit.schedule import make_scheduler
from diffusekit.visualise import forward
from diffusekit.visualise.forward import SCHEDULES, add_noise, alpha_bars, noise


@pytest.fixture
def photo(tmp_path):
    gradient = Image.linear_gradient("L").resize((150, 128))
    merged = Image.merge("RGB", (gradient, gradient.rotate(180), Image.new("L", (150, 128), 90)))
    merged.save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_encode_is_the_vaes_mean_and_scaled(families, mini):
    from diffusekit import models

    model = models.load(str(families["sd1"]), "cpu")
    pixels = torch.rand(2, 3, 16, 16) * 2 - 1
    found = latents.encode(model, pixels)
    known = model.vae.encode(pixels).latent_dist.mean * model.vae.config.scaling_factor
    assert found.shape == (2, 4, 8, 8) and torch.equal(found, known)
    assert model.vae.config.scaling_factor != 1


def test_the_schedules_are_those_of_the_papers(mini):
    config = mini.scheduler_config
    own = make_scheduler("ddim", config).alphas_cumprod.double()
    assert torch.equal(alpha_bars("own", config), own)
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    assert alpha_bars("linear", config) == pytest.approx((1 - betas).cumprod(0), rel=1e-4)
    roots = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64)
    known = (1 - roots**2).cumprod(0)
    assert alpha_bars("scaled-linear", config) == pytest.approx(known, rel=1e-4)
    at = torch.arange(1, 1000, dtype=torch.float64) / 1000  # Nichol and Dhariwal, equation 17
    cosine = torch.cos((at + 0.008) / 1.008 * math.pi / 2) ** 2 / (math.cos(0.008 / 1.008 * math.pi / 2) ** 2)
    assert alpha_bars("cosine", config)[:-1] == pytest.approx(cosine, abs=1e-5)
    zero = alpha_bars("zero_terminal", config)
    assert zero[-1] == 0 and float(zero[0]) == pytest.approx(float(own[0]), rel=1e-6)
    for name in SCHEDULES:
        curve = alpha_bars(name, config)
        assert len(curve) == 1000 and bool((curve.diff() < 0).all()), name


def test_a_schedule_that_was_rescaled_is_not_rescaled_under_another_name(mini):
    rescaled = {**mini.scheduler_config, "rescale_betas_zero_snr": True}
    assert torch.equal(alpha_bars("linear", rescaled), alpha_bars("linear", mini.scheduler_config))


def test_the_numbers_are_those_of_the_formula(photo, mini):
    figure = noise(photo, at=[999, 250, 0, 250], schedules=("own", "zero_terminal"), seed=3)
    rows = figure.numbers["schedules"]["own"]
    assert [row["timestep"] for row in rows] == [0, 250, 999]
    curve = make_scheduler("ddim", mini.scheduler_config).alphas_cumprod
    x0 = images.to_tensor(images.crop_square(Image.open(photo), mini.native_size))
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(3))
    for row in rows:
        bar = float(curve[row["timestep"]])
        assert row["alpha_bar"] == pytest.approx(bar)
        assert row["sigma"] ** 2 == pytest.approx(1 - bar)
        assert row["snr"] == pytest.approx(bar / (1 - bar), rel=1e-4)
        assert row["log_snr"] == pytest.approx(math.log(row["snr"]))
        noised = bar**0.5 * x0 + (1 - bar) ** 0.5 * eps
        assert row["rms_pixels"] == pytest.approx(float(noised.square().mean().sqrt()), rel=1e-5)
    last = figure.numbers["schedules"]["zero_terminal"][-1]
    assert last["snr"] == 0 and last["log_snr"] is None and last["sigma"] == 1


def test_the_loss_of_the_vae_is_measured_on_pixels(photo, mini):
    figure = noise(photo, at=[0])
    before = images.crop_square(Image.open(photo).convert("RGB"), mini.native_size)
    z0 = latents.encode(mini, images.to_tensor(before)[None])
    after = images.to_pil(latents.decode(mini, z0))[0]
    error = (images.to_tensor(after) - images.to_tensor(before)).double() * 127.5
    lost = figure.numbers["vae"]
    assert lost["psnr"] == pytest.approx(10 * math.log10(255**2 / float(error.square().mean())))
    assert lost["factor"] * float(error.abs().max()) / 127.5 > 0.2  # it can be seen


def test_by_default_eight_timesteps_from_the_first_to_the_last_are_shown(photo):
    times = [row["timestep"] for row in noise(photo).numbers["schedules"]["own"]]
    assert len(times) == 8 and times[0] == 0 and times[-1] == 999


def test_the_first_image_is_the_original_and_the_last_is_pure_noise(photo, mini):
    process = add_noise(photo)
    first, last = process.images_at(1.0)[0], process.images_at(0.0)[0]
    assert first.tobytes() == images.crop_square(Image.open(photo), mini.native_size).tobytes()
    assert last.tobytes() == images.to_pil(process.pixel_noise)[0].tobytes()


def test_every_frame_of_the_film_differs_and_has_the_same_size(photo, tmp_path, monkeypatch):
    monkeypatch.setattr(forward, "FRAMES", 4)
    path = noise(photo, schedules=("own", "cosine")).save(tmp_path / "noise.webp")
    with Image.open(path) as film:
        assert film.n_frames == 4
        seen = []
        for i in range(4):
            film.seek(i)
            seen.append(film.convert("RGB").tobytes())
        assert len(set(seen)) == 4 and len({len(s) for s in seen}) == 1


def test_a_generated_image_keeps_its_record(tmp_path):
    made = generate("a red cat", seed=1, steps=1)[0]
    made.save(tmp_path / "cat.png")
    for source in (made, tmp_path / "cat.png"):
        path = noise(source, at=[0, 999]).save(tmp_path / "noise.png", overwrite=True)
        assert read_metadata(path).settings.prompt == "a red cat"


@pytest.mark.parametrize("t", [-1, 1000])
def test_a_timestep_out_of_range_is_refused(photo, capsys, t):
    with pytest.raises(UsageError, match=f"timestep {t} is out of range"):
        noise(photo, at=[t])
    assert run(["visualise", "noise", str(photo), "--at", str(t)]) == 2
    assert "0 to 999" in capsys.readouterr().err


def test_an_unknown_schedule_is_refused(photo):
    with pytest.raises(UsageError) as caught:
        noise(photo, schedules=("quadratic",))
    assert "zero_terminal" in caught.value.hint


def test_files_that_are_not_a_still_image_are_refused(tmp_path, capsys):
    (tmp_path / "words.png").write_text("not a picture")
    frames = [Image.new("RGB", (32, 32), c) for c in ("red", "blue", "green")]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    Image.new("1", (9000, 9000)).save(tmp_path / "bomb.png")
    for name, word in (
        ("words.png", "not an image"),
        ("film.gif", "3 frames"),
        ("bomb.png", "too large"),
        ("missing.png", "cannot open"),
    ):
        with pytest.raises(FileRefused, match=word):
            noise(tmp_path / name)
        assert run(["visualise", "noise", name]) == 3
        said = capsys.readouterr().err
        assert said.startswith("error: ") and "hint: " in said and said.count("\n") == 2
    assert not list(tmp_path.glob("outputs/**/*.png"))


def test_the_command_writes_the_requested_file(photo, capsys):
    assert run(["visualise", "noise", str(photo), "--at", "0", "--at", "500", "-o", "n.json"]) == 0
    assert capsys.readouterr().out == "n.json\n"
    written = json.loads(Path("n.json").read_text())
    assert [row["timestep"] for row in written["schedules"]["own"]] == [0, 500]
    assert run(["visualise", "noise", str(photo), "--at", "0", "--at", "500", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == written
    assert run(["visualise", "noise", str(photo), "-o", "n.json"]) == 2
    assert run(["visualise", "noise", str(photo), "-o", "n.txt"]) == 2
