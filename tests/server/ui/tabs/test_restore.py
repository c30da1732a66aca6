"""Settings from an image back into the form."""

import pytest
from PIL import Image, PngImagePlugin

from diffusekit.errors import DiffusekitError, UsageError
from diffusekit.server.jobs.queue import Jobs
from diffusekit.server.ui.tabs import restore
from diffusekit.settings import ServeSettings
from tests.helpers.foreign_images import comfy, ksampler, node, png
from tests.helpers.generated_image import save_image


@pytest.fixture
def jobs(tmp_path):
    found = Jobs(ServeSettings(outputs=str(tmp_path / "out"), state=str(tmp_path / "state")))
    found.models.is_loaded = True  # as after loading; no worker is needed here
    return found


def test_a_picture_gives_its_settings_back(tmp_path, jobs):
    path = save_image(tmp_path / "x.png", prompt="a red cat", steps=9, sampler="euler_a")
    found = restore.form_values(jobs, path, "all")
    assert (found["prompt"], found["steps"], found["sampler"]) == ("a red cat", 9, "euler_a")
    assert found["seed"] == "7" and found["images"] == 1
    assert restore.form_values(jobs, path, "remix") == found | {"seed": ""}
    assert restore.form_values(jobs, path, "seed") == {"seed": "7"}


def test_a_picture_of_a1111_gives_back_what_it_can(tmp_path, jobs):
    info = PngImagePlugin.PngInfo()
    info.add_text(
        "parameters",
        "a cat\nNegative prompt: a dog\nSteps: 12, Sampler: Euler a, CFG scale: 5, Seed: 42, Size: 64x96, Model: other",
    )
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=info)
    found = restore.form_values(jobs, tmp_path / "a.png", "all")
    assert (found["seed"], found["steps"], found["width"], found["height"]) == ("42", 12, 64, 96)
    assert found["negative_prompt"] == "a dog" and found["sampler"] == "euler_a"


def test_what_another_program_does_not_say_is_named(tmp_path, jobs):
    graph = comfy(
        n3=ksampler(seed=["21", 0], sampler_name="res_2s"),
        n6=node("CLIPTextEncode", text=["20", 0]),
        n20=node("Wildcards", text="x", seed=1),
        n21=node("Random Number", minimum=0),
    )
    path = png(tmp_path / "x.png", prompt=graph)
    assert "prompt" not in restore.form_values(jobs, path, "all")  # the form keeps its own
    words = restore.restore_notice(jobs, path, "all")
    assert "the prompt comes from node 20 of class Wildcards" in words and "res_2s" in words
    assert "the seed comes from node 21" in words and "node 21" not in restore.restore_notice(jobs, path, "remix")
    assert "as far as they are known" in words
    with pytest.raises(UsageError, match="node 21"):
        restore.form_values(jobs, path, "seed")


def test_a_model_and_tokens_that_are_not_here_are_named(tmp_path, jobs):
    path = save_image(tmp_path / "x.png", model="someone/else", embedding=("my_ghost",))
    assert "model" not in restore.form_values(jobs, path, "all")
    words = restore.restore_notice(jobs, path, "all")
    assert "someone/else is not on this server" in words and "my_ghost is not on this server" in words


def test_a_picture_without_a_record_says_so(tmp_path, jobs):
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    with pytest.raises(UsageError, match="no generation settings"):
        restore.form_values(jobs, tmp_path / "plain.png", "all")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(DiffusekitError):
        restore.form_values(jobs, tmp_path / "text.png", "all")
