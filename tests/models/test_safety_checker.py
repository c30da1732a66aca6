"""The safety checker that a model brings: what it flags is not written, and everybody is told."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import diffusekit
from diffusekit import metadata, models
from diffusekit.cli.main import run
from diffusekit.errors import ImagesFlagged, ModelError
from tests.helpers.safety import ALL, NONE, add_checker, edit_index
from tests.helpers.server import client_of, opened

SIZE = {"device": "cpu", "width": 16, "height": 16, "steps": 1, "sampler": "euler", "spacing": "trailing"}
FLAGS = [
    "--size",
    "16x16",
    "--steps",
    "1",
    "--sampler",
    "euler",
    "--spacing",
    "trailing",
    "--device",
    "cpu",
    "--seed",
    "0",
]


@pytest.fixture(scope="session")
def checked(families, tmp_path_factory):
    """Models that bring a checker: one flags every image, one none, one about half of them."""
    root = tmp_path_factory.mktemp("checked")
    found = {name: Path(shutil.copytree(families["sd1"], root / name)) for name in ("all", "none", "half", "new names")}
    add_checker(found["all"], threshold=ALL)
    add_checker(found["none"], threshold=NONE)
    for name, old_names in (("half", True), ("new names", False)):
        add_checker(found[name], threshold=_median(found["none"]), old_names=old_names)
    return {name: str(folder) for name, folder in found.items()}


def _median(folder) -> float:
    """The cosine to the first concept that half of the images of seeds 0 to 5 are above."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker, cosine_distance
    from transformers import CLIPImageProcessor

    network = StableDiffusionSafetyChecker.from_pretrained(folder / "safety_checker")
    processor = CLIPImageProcessor.from_pretrained(folder / "feature_extractor")
    made = diffusekit.generate("a cat", model=str(folder), images=6, seed=0, **SIZE)
    pixels = processor([each.image for each in made], return_tensors="pt").pixel_values
    with torch.no_grad():
        states = network.visual_projection(network.vision_model(pixels)[1])
        cosines = cosine_distance(states, network.concept_embeds)[:, 0].sort().values
    return float(cosines[2:4].mean())


@pytest.fixture
def copy(checked, tmp_path):
    """A folder of the model whose checker flags nothing, to be damaged."""
    return Path(shutil.copytree(checked["none"], tmp_path / "copy"))


def stream(model, **settings):
    generation = diffusekit.stream("a cat", model=model, **(SIZE | {"seed": 0} | settings))
    for _ in generation:
        pass
    return generation


# --- decisions ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["half", "new names"])
def test_the_decisions_are_those_of_diffusers(checked, name):
    from diffusers import StableDiffusionPipeline

    from diffusekit import latents, schedule
    from diffusekit.device import make_generators

    pipe = StableDiffusionPipeline.from_pretrained(checked[name])
    pipe.set_progress_bar_config(disable=True)
    generation = stream(checked[name], images=6, batch=2)
    config = generation.model.scheduler_config | {"timestep_spacing": "trailing"}
    pipe.scheduler = schedule.make_scheduler("euler", config)
    start = latents.noise(latents.shape(generation.model, 16, 16), make_generators(range(6)))
    theirs = pipe(["a cat"] * 6, num_inference_steps=1, latents=start, width=16, height=16, guidance_scale=7.5)
    flagged = {each.record.settings.seed for each in generation.flagged}
    assert flagged == {seed for seed, flag in enumerate(theirs.nsfw_content_detected) if flag}
    assert len(flagged) == 3 and len(generation.images) == 3


@pytest.mark.slow
def test_what_is_flagged_is_said_and_the_others_are_made(checked):
    generation = stream(checked["half"], images=6)
    seeds = [each.record.settings.seed for each in generation.finished]
    assert seeds == list(range(6)) and not list(generation)
    flagged = [each.record.settings.seed for each in generation.flagged]
    lines = [f"the safety checker of half flagged the image of `seed` {seed}" for seed in flagged]
    assert [line for line in generation.warnings if "flagged" in line] == lines and len(lines) == 3
    assert not hasattr(generation.flagged[0], "image")


@pytest.mark.slow
def test_the_record_says_whether_an_image_was_checked(checked, families, caplog):
    checkers = [
        diffusekit.generate("a cat", model=model, no_safety_checker=off, **SIZE)[0].record.safety_checker
        for model, off in (
            (checked["none"], False),
            (checked["all"], True),
            (str(families["sd1"]), False),
        )
    ]
    assert checkers == ["passed", "off", ""]
    assert not [record for record in caplog.records if "checker" in record.getMessage()]


@pytest.mark.slow
def test_generate_leaves_out_what_is_flagged_and_raises_when_nothing_is_left(checked):
    assert len(diffusekit.generate("a cat", model=checked["half"], images=6, seed=0, **SIZE)) == 3
    with pytest.raises(ImagesFlagged, match="flagged the image, which was not written"):
        diffusekit.generate("a cat", model=checked["all"], **SIZE)


@pytest.mark.slow
def test_a_flagged_preview_is_black(checked):
    for name, is_black in (("all", True), ("none", False)):
        generation = diffusekit.stream("a cat", model=checked[name], seed=0, **SIZE)
        (preview,) = generation.preview(next(iter(generation)))
        assert preview.size == (16, 16) and (preview.getextrema() == ((0, 0),) * 3) == is_black


@pytest.mark.slow
def test_nothing_is_shown_of_an_image_that_is_flagged(checked):
    from diffusekit import visualise

    with pytest.raises(ImagesFlagged):
        visualise.denoise("a cat", model=checked["all"], **SIZE)


@pytest.mark.slow
def test_half_precision_is_checked_in_half_precision(checked):
    generation = stream(checked["all"], dtype="bfloat16")
    assert len(generation.flagged) == 1


# --- the command line ----------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_line_writes_the_others_and_exits_with_10(checked, capsys):
    assert run(["generate", "a cat", "--model", checked["half"], *FLAGS, "-n", "6", "-o", "out/", "--json"]) == 10
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert len(found["pictures"]) == len(list(Path("out").iterdir())) == 3
    assert len(found["flagged"]) == 3 and all(set(each) == {"prompt", "seed"} for each in found["flagged"])
    assert "error: the model's safety checker flagged 3 of 6 images, which were not written" in err
    assert "hint: change the prompt or the --seed; --no-safety-checker turns the checker off" in err


@pytest.mark.slow
def test_the_checker_is_only_turned_off_explicitly(checked, capsys):
    assert run(["generate", "a cat", "--model", checked["all"], *FLAGS, "-o", "x.png"]) == 10
    assert not Path("x.png").exists()
    command = ["generate", "a cat", "--model", checked["all"], *FLAGS, "--no-safety-checker", "-o", "x.png"]
    assert run(command) == 0
    record = metadata.read(Path("x.png")).record
    assert record is not None and record.safety_checker == "off" and record.settings.no_safety_checker
    assert run(["again", "x.png", "--model", checked["all"], "-o", "y.png"]) == 10
    assert not Path("y.png").exists() and "no-safety-checker" in capsys.readouterr().err


@pytest.mark.slow
def test_a_batch_goes_on_and_names_what_was_flagged(checked):
    Path("prompts.txt").write_text("a cat\na dog\na cow\n")
    command = ["batch", "prompts.txt", "--model", checked["half"], "--width", "16", "--height", *FLAGS[1:]]
    command[command.index("16x16")] = "16"
    assert run([*command, "-n", "6", "-o", "out"]) not in (0, 1, 2)
    lines = [json.loads(line) for line in Path("out/manifest.jsonl").read_text().splitlines()]
    failed = [line for line in lines if line["status"] == "failed"]
    assert len(lines) == 3 and failed and all("safety checker flagged" in line["error"] for line in failed)
    assert sum(len(line["files"]) for line in lines) == len(list(Path("out").glob("*.png")))


# --- a checker that cannot be used ---------------------------------------------------------------


def damage(folder: Path, what: str) -> None:
    checker = folder / "safety_checker"
    if what == "no weights":
        (checker / "model.safetensors").unlink()
    elif what == "a pickle":
        (checker / "model.safetensors").rename(checker / "pytorch_model.bin")
    elif what == "no folder":
        shutil.rmtree(checker)
    elif what == "no processor":
        shutil.rmtree(folder / "feature_extractor")
    elif what == "cut off":
        data = (checker / "model.safetensors").read_bytes()
        (checker / "model.safetensors").write_bytes(data[: len(data) // 2])
    elif what == "another class":
        edit_index(folder, ["my_code", "MyChecker"])
    elif what == "code":
        config = json.loads((checker / "config.json").read_text())
        (checker / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "x.Y"}}))
    else:
        assert what == "another size"
        config = folder / "feature_extractor" / "preprocessor_config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"crop_size": 224}))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("no weights", "holds no .safetensors weights"),
        ("a pickle", "holds no .safetensors weights, only pytorch_model.bin"),
        ("no folder", "config.json does not exist"),
        ("no processor", "preprocessor_config.json does not exist"),
        ("cut off", "is cut off"),
        ("another class", "is a 'MyChecker', expected StableDiffusionSafetyChecker"),
        ("code", "asks for code of its own"),
        ("another size", "takes images of '32' pixels, its feature extractor makes '224'"),
    ],
)
def test_a_checker_that_cannot_be_used_is_refused_before_an_image_is_made(copy, what, says):
    damage(copy, what)
    with pytest.raises(ModelError, match="the safety checker of copy") as caught:
        diffusekit.stream("a cat", model=str(copy), **SIZE)
    assert says in caught.value.message and caught.value.exit_code == 8
    assert "`no_safety_checker`" in caught.value.hint
    assert stream(str(copy), no_safety_checker=True).images


@pytest.mark.slow
def test_missing_and_wrong_tensors_are_refused(copy):
    from safetensors.torch import load_file, save_file

    file = copy / "safety_checker" / "model.safetensors"
    tensors = load_file(file)
    for key, value in (("visual_projection.weight", None), ("concept_embeds", torch.zeros(17, 9))):
        changed = {k: v for k, v in tensors.items() if k != key} | ({} if value is None else {key: value})
        save_file(changed, file, metadata={"format": "pt"})
        models.load("mini", "cpu")  # so that the checker is not in memory
        with pytest.raises(ModelError, match="safety checker of copy"):
            stream(str(copy))


# --- the server ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clients(checked, tmp_path_factory):
    """Clients of a server for each model."""
    folder = tmp_path_factory.mktemp("safety")
    found = {}
    with opened(model=checked["all"], outputs=f"{folder}/a", state=f"{folder}/as", device="cpu") as every:
        found["all"] = client_of(every)
        with opened(model=checked["half"], outputs=f"{folder}/h", state=f"{folder}/hs", device="cpu") as half:
            found["half"] = client_of(half)
            yield found


@pytest.mark.slow
def test_apis_answer_with_an_error_when_nothing_is_left(clients):
    client, body = clients["all"], {"prompt": "a cat", "steps": 1, "width": 16, "height": 16}
    got = client.post("/sdapi/v1/txt2img", json=body)
    assert got.status_code == 400 and got.json()["code"] == 10
    assert got.json()["detail"].startswith("the model's safety checker flagged the image, which was not written")
    got = client.post("/v1/images/generations", json={"prompt": "a cat", "steps": 1, "size": "16x16"})
    error = got.json()["error"]
    assert got.status_code == 400 and error["code"] == "content_policy_violation"
    assert error["type"] == "invalid_request_error"


@pytest.mark.slow
def test_apis_return_the_other_images_with_a_warning(clients):
    client = clients["half"]
    body = {"prompt": "a cat", "steps": 1, "seed": 0}
    euler = {"sampler_name": "Euler", "scheduler": "SGM Uniform"}
    got = client.post("/sdapi/v1/txt2img", json=body | euler | {"width": 16, "height": 16, "batch_size": 6})
    info = json.loads(got.json()["info"])
    assert got.status_code == 200 and len(got.json()["images"]) == len(info["all_seeds"]) == 3
    assert sum("flagged the image" in line for line in info["warnings"]) == 3
    got = client.post("/v1/images/generations", json=body | {"size": "16x16", "n": 6, "sampler": "Euler SGM Uniform"})
    assert got.status_code == 200 and len(got.json()["data"]) == 3
    assert sum("flagged the image" in line for line in got.json()["warnings"]) == 3


@pytest.mark.slow
def test_a_request_cannot_turn_the_checker_off(clients):
    settings = {"prompt": "a cat", "steps": 1, "no_safety_checker": True}
    got = clients["all"].post("/api/jobs", json={"settings": settings})
    assert got.status_code == 422 and got.json()["error"]["field"] == "no_safety_checker"
