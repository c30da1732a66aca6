"""Images with LoRA files: latents as in diffusers, prompts that ask for them, records, `again`, and what is said."""

import json
from pathlib import Path

import diffusers
import pytest
import torch

import diffusekit
from diffusekit import lora, metadata, models, schedule
from diffusekit.cli.main import run
from diffusekit.errors import FileRefused, UsageError
from tests.helpers.lora_files import write_lora

QUICK = {"steps": 2, "width": 64, "height": 64, "seed": 3, "sampler": "ddim"}
FLAGS = ["--steps", "1", "--size", "64x64", "--seed", "3"]


@pytest.fixture(scope="module")
def folder(random_models):
    return random_models["sd1"]


@pytest.fixture(scope="module")
def model(folder):
    return models.load(str(folder), "cpu", "float32")


@pytest.fixture
def loras(folder):
    """./loras with ink, which changes everything, and pen, which changes the U-Net."""
    write_lora(Path("loras/ink.safetensors"), folder, "kohya", alpha=2.0)
    write_lora(Path("loras/pen.safetensors"), folder, "peft", seed=1)
    return Path("loras")


def latents(prompt, **settings):
    """The latents of the last step, one row for each image."""
    generation = diffusekit.stream(prompt, **{**QUICK, **settings})
    finished, last = [], None
    for step in generation:
        if len(generation.images) > len(finished) and last is not None:
            finished += list(last)
        last = step.x_next
    return torch.stack([*finished, *last])


@pytest.mark.slow
def test_latents_equal_those_of_diffusers(folder, model, loras):
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    pipe.load_lora_weights("loras/ink.safetensors", adapter_name="ink")
    pipe.set_adapters(["ink"], [0.8])
    pipe.scheduler = schedule.make_scheduler("ddim", model.scheduler_config)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    asked = {"num_inference_steps": 2, "guidance_scale": 7.5, "latents": noise, "output_type": "latent"}
    theirs = pipe("a red cat", negative_prompt="a dog", **asked).images
    settings = {"negative_prompt": "a dog", "guidance_scale": 7.5, "model": model}
    ours = latents("a red cat", lora=("ink:0.8",), **settings)
    assert (ours - theirs).abs().max() < 1e-4
    assert (latents("a red cat", **settings) - theirs).abs().max() > 0.01


def test_a_tag_in_a1111_syntax_is_the_setting_for_one_prompt(model, loras):
    """Prompts with other files are not in one batch, and each image is what it is alone."""
    plain, ink = latents("a cat", model=model), latents("a cat", model=model, lora=("ink:0.5",))
    settings = {"model": model, "prompt_syntax": "a1111", "batch": 3}
    together = latents(["a cat<lora:ink:0.5>", "a cat", "a cat<lora:ink:0.3><lora:pen>"], **settings)
    torch.testing.assert_close(together[:1], ink)
    torch.testing.assert_close(together[1:2], plain)
    both = latents("a cat", model=model, lora=("ink:0.3", "pen"))
    torch.testing.assert_close(together[2:], both)
    assert (ink - plain).abs().max() > 0.01 and (both - ink).abs().max() > 0.01


def test_the_number_of_steps_counts_batches_of_equal_files(model, loras):
    prompts = ["a<lora:ink:0.5>", "b<lora:ink:0.5>", "c"]
    generation = diffusekit.stream(prompts, model=model, prompt_syntax="a1111", batch=3, **QUICK)
    assert generation.total == len(list(generation)) == 4


def test_the_loaded_model_is_never_changed(model, loras):
    """Even while a run with a LoRA is under way: another one on the same model gives its own image."""
    before = {name: tensor.clone() for name, tensor in model.unet.state_dict().items()}
    plain = latents("a cat", model=model)
    under_way = iter(diffusekit.stream("a cat", model=model, lora=("ink:1",), **QUICK))
    next(under_way)
    assert torch.equal(latents("a cat", model=model), plain)
    next(under_way)
    after = model.unet.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[name], before[name]) for name in before)


def test_another_strength_loads_nothing_again(folder, loras):
    first = diffusekit.stream("a cat", model=str(folder), lora=("ink:0.5",), **QUICK)
    weights = lora.load_lora(loras / "ink.safetensors")
    second = diffusekit.stream("a cat", model=str(folder), lora=("ink:0.6",), **QUICK)
    assert second.model is first.model and lora.load_lora(loras / "ink.safetensors") is weights
    assert not torch.equal(next(iter(first)).x_next, next(iter(second)).x_next)


def test_plain_syntax_names_the_tag_and_says_what_to_do(mini):
    (warning,) = diffusekit.stream("a cat <lora:ink:0.8>", model=mini, **QUICK).warnings
    assert warning.endswith("LoRA <lora:ink:0.8>; give it with `lora`, or set `prompt_syntax` to a1111")


def test_a_file_that_matches_in_part_is_a_warning(model, loras, folder):
    from safetensors.torch import load_file, save_file

    more = {f"lora_unet_x.lora_{end}.weight": torch.ones(2, 2) for end in ("down", "up")}
    save_file(load_file("loras/ink.safetensors") | more, "loras/more.safetensors")
    generation = diffusekit.stream("a cat", model=model, lora=("more:0.8",), **QUICK)
    warning = generation.warnings[0]
    (match,) = generation.loras.matches
    assert warning == (
        f"the LoRA more matched {match.total - 1} of {match.total} layers of the model sd1; "
        "the others have no effect, the first one is 'x'"
    )


def test_what_cannot_be_used_is_refused_before_anything_is_drawn(model, mini, loras):
    with pytest.raises(UsageError, match="no LoRA 'pencil'"):
        diffusekit.stream("a cat <lora:pencil:1>", model=model, prompt_syntax="a1111", **QUICK)
    with pytest.raises(FileRefused, match=r"does not fit the model mini|matched 0 of"):
        diffusekit.stream("a cat", model=mini, lora=("ink",), **QUICK)
    with pytest.raises(UsageError, match=r"`lora` should be like ink:0.8; 'ink:strong' has 'strong'"):
        diffusekit.stream("a cat", model=model, lora=("ink:strong",), **QUICK)


# --- records ---------------------------------------------------------------------------------


def test_the_record_has_names_strengths_and_the_hashes_of_a1111(model, loras):
    asked = {"lora": ("loras/ink.safetensors:0.5",), "prompt_syntax": "a1111", "model": model}
    (image,) = diffusekit.generate("a cat<lora:pen:0.5:0.25>", **asked, **QUICK)
    record = image.record
    assert record.settings.lora == ("ink:0.5",) and record.settings.prompt == "a cat<lora:pen:0.5:0.25>"
    assert record.loras == {name: lora.hash_lora(loras / f"{name}.safetensors") for name in ("ink", "pen")}
    first, *_, last = metadata.format_infotext(record).split("\n")
    assert first == "a cat<lora:pen:0.5:0.25> <lora:ink:0.5>"
    assert f'Lora hashes: "ink: {record.loras["ink"][:12]}, pen: {record.loras["pen"][:12]}"' in last


def test_the_infotext_alone_gives_the_same_settings(model, loras):
    """Also where brackets are text, so that A1111's syntax is off."""
    for prompt, syntax in (("a (red) cat", "plain"), ("a red cat", "a1111")):
        (image,) = diffusekit.generate(prompt, lora=("ink:0.5",), prompt_syntax=syntax, model=model, **QUICK)
        record = image.record.model_copy(update={"versions": {"diffusekit": "0.7.0"}})
        text = metadata.format_infotext(record)
        found = metadata.settings_from_infotext(metadata.parse_infotext(text))
        if syntax == "plain":
            assert (found.prompt, found.lora) == (prompt, ("ink:0.5",))
        assert found.prompt_syntax == syntax
        again = diffusekit.stream(found.prompt, model=model, lora=found.lora, prompt_syntax=syntax, **QUICK)
        assert [str(each) for each in again.loras.requests(found.prompt)] == ["ink:0.5"]


@pytest.mark.slow
def test_again_finds_the_file_by_name_or_hash(folder, loras, capsys):
    asked = ["generate", "a cat<lora:ink:0.5>", "--prompt-syntax", "a1111", "--lora", "pen:0.7", "--model", str(folder)]
    assert run([*asked, *FLAGS, "-o", "first.png"]) == 0
    assert "the LoRA pen matched" in capsys.readouterr().err
    assert run(["again", "first.png", "--model", str(folder), "-q", "-o", "second.png"]) == 0
    first, second = (metadata.read(Path(name)).record for name in ("first.png", "second.png"))
    assert first and second and first.loras == second.loras and "LoRA" not in capsys.readouterr().err
    (loras / "ink.safetensors").rename(loras / "inkwash.safetensors")
    (loras / "pen.safetensors").rename(loras / "pencil.safetensors")
    assert run(["again", "first.png", "--model", str(folder), "-q", "-o", "third.png"]) == 0
    third = metadata.read(Path("third.png")).record
    assert third and third.settings.prompt == "a cat<lora:inkwash:0.5>" and third.settings.lora == ("pencil:0.7",)
    assert list(third.loras.values()) == [first.loras["pen"], first.loras["ink"]]
    assert "the LoRA pen of the image was found by its hash: it is pencil here" in capsys.readouterr().err
    assert Path("third.png").read_bytes()[-200:] == Path("second.png").read_bytes()[-200:]


@pytest.mark.slow
def test_again_warns_of_a_changed_file_and_refuses_a_missing_one(folder, loras, capsys):
    flags = [*FLAGS, "--model", str(folder), "-q"]
    assert run(["generate", "a cat", "--lora", "ink:0.5", *flags, "-o", "first.png"]) == 0
    write_lora(loras / "ink.safetensors", folder, "kohya", seed=5)
    assert run(["again", "first.png", *flags, "-o", "second.png"]) == 0
    assert "the LoRA ink has changed: the image was made with the hash" in capsys.readouterr().err
    (loras / "ink.safetensors").unlink()
    assert run(["again", "first.png", *flags, "-o", "third.png"]) == 8
    err = capsys.readouterr().err
    assert "was not found by its name or its hash" in err and "put its file into loras, or give another --lora" in err


def test_the_command_line_says_what_matched(folder, loras, capsys):
    flags = [*FLAGS, "--model", str(folder), "-o", "x.png"]
    assert run(["generate", "a cat", "--lora", "ink:0.5", "--lora", "pen", "--json", *flags]) == 0
    found = json.loads(capsys.readouterr().out)["loras"]
    assert [each["name"] for each in found] == ["ink", "pen"] and all(e["matched"] == e["layers"] for e in found)
    assert run(["generate", "a cat", "--lora", "nothing", *flags, "--overwrite"]) == 2
    assert "there is no LoRA 'nothing' in loras" in capsys.readouterr().err
    assert run(["info", "x.png"]) == 0
    out = capsys.readouterr().out
    assert '["ink:0.5", "pen:1"]' in out and "lora hashes" in out


# --- few steps -------------------------------------------------------------------------------


def test_a_lora_for_few_steps_brings_its_steps_sampler_and_guidance(folder, model):
    write_lora(Path("loras/lcm-lora-sdv1-5.safetensors"), folder, "kohya", alpha=2.0)
    generation = diffusekit.stream("a cat", model=model, lora=("lcm-lora-sdv1-5",))
    settings = generation.settings
    assert (settings.steps, settings.sampler, settings.guidance_scale) == (4, "lcm", 1.0)
    (said,) = (text for text in generation.warnings if "with a LoRA is an LCM" in text)
    assert "`steps` 4, `sampler` lcm, `guidance_scale` 1" in said and "'lcm-lora-sdv1-5'" in said
    own = diffusekit.stream("a cat", model=model, lora=("lcm-lora-sdv1-5",), steps=6, guidance_scale=1.5).settings
    assert (own.steps, own.sampler, own.guidance_scale) == (6, "lcm", 1.5)


def test_a_lora_for_few_steps_that_not_every_prompt_has_changes_no_defaults(folder, model):
    write_lora(Path("loras/lcm-lora-sdv1-5.safetensors"), folder, "kohya", alpha=2.0)
    prompts = ["a cat<lora:lcm-lora-sdv1-5>", "a dog"]
    some = diffusekit.stream(prompts, model=model, prompt_syntax="a1111")
    every = diffusekit.stream(prompts[:1], model=model, prompt_syntax="a1111")
    assert (some.settings.steps, every.settings.steps) == (20, 4)
