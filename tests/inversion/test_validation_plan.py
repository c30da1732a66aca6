"""Validation images take at most a fifth of a run by default, and what the settings give is kept."""

from collections.abc import Iterator

import pytest
import torch

from diffusekit.errors import UsageError
from diffusekit.inversion.run_folder import INIT_STEP, RunFolder, read_images, token_images
from diffusekit.inversion.trainer import Inversion
from diffusekit.inversion.validation_plan import ValidationPlan, choose
from diffusekit.settings import InvertSettings
from tests.helpers.inversions import learn, quick


def test_by_default_validation_takes_at_most_a_fifth_of_any_run():
    for batch in (1, 2, 4, 8, 16, 64):
        for steps in (*range(1, 130), 200, 479, 480, 500, 599, 600, 601, 719, 1000, 2399, 2401, 3000, 100_000):
            plan = choose(InvertSettings(steps=steps, batch=batch))
            if steps * batch >= 48:  # less work than an image takes in a fifth
                limit = 0.2 if steps < 5 * (plan.every or steps + 1) else 0.2 + 0.02  # an end between two validations
                assert plan.share(InvertSettings(steps=steps, batch=batch)) <= limit, (steps, batch, plan)
            else:
                assert plan == ValidationPlan(0, 1, 0, has_baseline=False)


@pytest.mark.parametrize(
    ("steps", "batch", "expected"),
    [
        (600, 4, ValidationPlan(120)),
        (6000, 4, ValidationPlan(120)),
        (600, 8, ValidationPlan(100)),
        (2400, 1, ValidationPlan(480)),
        (599, 4, ValidationPlan(0)),
        (200, 4, ValidationPlan(0)),
        (100, 4, ValidationPlan(0, 2, 2)),
        (48, 4, ValidationPlan(0, 1, 1)),
        (47, 4, ValidationPlan(0, 1, 0, has_baseline=False)),
    ],
)
def test_the_plan_of_a_run(steps, batch, expected):
    assert choose(InvertSettings(steps=steps, batch=batch)) == expected


def test_what_the_settings_give_is_kept():
    assert choose(InvertSettings(steps=10, preview_every=5)) == ValidationPlan(5)
    assert choose(InvertSettings(steps=10, preview_every=0)) == ValidationPlan(0)
    assert choose(InvertSettings(steps=10, preview_images=6)) == ValidationPlan(0, 6, 4)
    assert choose(InvertSettings(steps=10, preview_every=2, preview_images=1)) == ValidationPlan(2, 1, 1)


@pytest.mark.parametrize(("count", "alone"), [(8, 4), (6, 3), (2, 1), (1, 1), (10, 6), (20, 16)])
def test_how_many_images_of_a_file_show_the_token_alone(count, alone):
    assert token_images(count) == alone


def test_size_and_number_of_validation_images(families, tmp_path):
    settings = quick(tmp_path, families["sd1"], steps=2, preview_every=1, preview_images=2, preview_size=32)
    learn(settings, tmp_path / "out")
    folder = RunFolder(tmp_path / "out", "three")
    for _, path in folder.validation_images():
        assert [image.size for image in read_images(path)] == [(32, 32)] * 4
    assert [step for step, _ in folder.validation_images()] == [INIT_STEP, 1, 2]
    assert len(folder.latest_images()) == 2


def test_a_size_that_the_model_cannot_draw_is_refused_by_its_name(families, tmp_path):
    with pytest.raises(UsageError, match="`preview_size` 33 cannot be drawn") as caught:
        Inversion(quick(tmp_path, families["sd1"], preview_size=33), tmp_path / "out")
    assert "try 32 or 36" in caught.value.hint


def test_a_very_short_run_draws_one_image_and_keeps_its_last_vectors(mini, tmp_path, caplog):
    settings = quick(tmp_path, "mini", steps=3, preview_every=None, vectors=1)
    run = Inversion(settings, tmp_path / "out")
    evaluated = [progress.step for progress in run if progress.evaluation]
    run.close()
    assert evaluated == [3] and run.result is not None and not caplog.records
    assert torch.equal(run.result.vectors[0], run.optimizer.placeholders[0].vectors.detach())
    assert run.result.metadata["scores"] == "{}" and run.result.metadata["steps"] == "3"
    assert len(RunFolder(tmp_path / "out", "three").latest_images()) == 1
    assert "too short for scores" in (tmp_path / "out/three/index.html").read_text()


def work(run: Inversion) -> Iterator[str]:
    """The calls of the U-Net in a run, in order: "train" or "validate", once for each sample."""
    calls: list[str] = []
    hook = run.model.unet.register_forward_hook(
        lambda _module, args, _output: calls.extend(["train" if torch.is_grad_enabled() else "validate"] * len(args[0]))
    )
    list(run)
    hook.remove()
    run.close()
    yield from calls


@pytest.mark.slow
@pytest.mark.parametrize("steps", [24, 60])
def test_counted_in_evaluations_of_the_unet_it_is_a_fifth(families, tmp_path, monkeypatch, steps):
    """A training sample counts twice: its gradient takes as long as the evaluation."""
    monkeypatch.setattr("diffusekit.inversion.evaluation.STEPS", 14)
    settings = quick(tmp_path, families["sd1"], steps=steps, batch=4, vectors=1, preview_every=None)
    calls = list(work(Inversion(settings, tmp_path / "out")))
    validated, trained = calls.count("validate"), 2 * calls.count("train")
    assert trained == 8 * steps and 0 < validated <= (trained + validated) / 5 * 1.02
