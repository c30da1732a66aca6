"""Models of few steps are recognized from what their files say, and others are not."""

import pytest

from diffusekit.model_files import distillation, find_lora_defaults
from diffusekit.model_files.distillation import SamplingDefaults, find_defaults

UNETS = {
    "sd1": {"cross_attention_dim": 768, "sample_size": 64},
    "sd2": {"cross_attention_dim": 1024, "sample_size": 64},
    "sdxl": {"cross_attention_dim": 2048, "sample_size": 128, "addition_embed_type": "text_time"},
}
LEADING = {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading", "prediction_type": "epsilon"}
EULER = LEADING | {"timestep_spacing": "trailing"}
ANCESTRAL = EULER | {"_class_name": "EulerAncestralDiscreteScheduler"}


def find(name, family="sdxl", scheduler=LEADING, unet=None, **names):
    return find_defaults(name, family, UNETS[family] | (unet or {}), scheduler, names=names)


@pytest.mark.parametrize(
    ("name", "family", "kind", "steps", "sampler", "guidance"),
    [
        ("stabilityai/sd-turbo", "sd2", "a Turbo model", 1, "euler", 1),
        ("stabilityai/sdxl-turbo@main", "sdxl", "a Turbo model", 1, "euler", 1),
        ("sd_xl_turbo_1.0_fp16.safetensors", "sdxl", "a Turbo model", 1, "euler", 1),
        ("dreamshaperXL_v21TurboDPMSDE.safetensors", "sdxl", "a merge with Turbo", 6, "euler", 2),
        ("sdxl_lightning_4step.safetensors", "sdxl", "a Lightning model", 4, "euler", 1),
        ("sdxl_lightning_8step", "sdxl", "a Lightning model", 8, "euler", 1),
        ("realvisxlV40_v40LightningBakedvae.safetensors", "sdxl", "a merge with Lightning", 6, "euler", 2),
        ("Hyper-SDXL-2steps", "sdxl", "a Hyper-SD model", 2, "ddim", 1),
        ("Hyper-SD15-8steps-CFG", "sd1", "a Hyper-SD model", 8, "ddim", 5),
        ("Hyper-SDXL-12steps-CFG", "sdxl", "a Hyper-SD model", 12, "ddim", 5),
        ("Hyper-SDXL-1step", "sdxl", "a Hyper-SD model", 1, "lcm", 1),
        ("IDKiro/sdxs-512-0.9", "sd2", "an SDXS model", 1, "euler", 1),
        ("dreamshaper_8LCM.safetensors", "sd1", "an LCM", 4, "lcm", 1),
        ("/models/SSD-1B-LCM", "sdxl", "an LCM", 4, "lcm", 1),
    ],
)
def test_a_name_is_recognized(name, family, kind, steps, sampler, guidance):
    found = find(name, family)
    assert (found.kind, found.steps, found.sampler, found.guidance_scale) == (kind, steps, sampler, guidance)
    assert found.reason.startswith("its name is ")
    assert dict(found.scheduler).get("timestep_spacing") == (None if kind == "an LCM" else "trailing")


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
@pytest.mark.parametrize(
    "name",
    ["mini", "runwayml/stable-diffusion-v1-5", "hyperRealism_v3", "turbocharged", "HyperRealistic XL", "acme/model"],
)
def test_other_names_leave_the_usual_defaults(name, family):
    assert find(name, family) == SamplingDefaults(guidance_scale=5.0 if family == "sdxl" else 7.5)


def test_the_name_of_a_car_is_no_turbo_model_of_stable_diffusion_1():
    assert not find("turbo-cars", "sd1").kind and not find("lightning-art", "sd1").kind


def test_the_u_net_says_that_a_model_is_an_lcm_whatever_its_name():
    found = find("sdxl_lightning_4step", unet={"time_cond_proj_dim": 256})
    assert (found.kind, found.steps, found.sampler, found.guidance_scale) == ("an LCM", 4, "lcm", 8)


def test_the_origin_and_the_title_count_after_the_name():
    origin = "/home/me/.cache/hub/models--stabilityai--sdxl-turbo/snapshots/123/unet"
    found = find("my-model", unet={"_name_or_path": origin})
    assert found.kind == "a Turbo model" and found.reason == "the origin of its U-Net is 'sdxl-turbo'"
    assert find("sdxl_lightning_2step", unet={"_name_or_path": origin}).kind == "a Lightning model"
    titled = find("model", **{"the title in its file": "SDXL Turbo"})
    assert titled.kind == "a Turbo model" and titled.reason == "the title in its file is 'SDXL Turbo'"
    assert not find("model", unet={"_name_or_path": "/data/turbo/trained"}).kind


@pytest.mark.parametrize(("scheduler", "kind"), [("LCMScheduler", "an LCM"), ("TCDScheduler", "a TCD model")])
def test_a_scheduler_for_few_steps_is_recognized(scheduler, kind):
    found = find("model", "sd1", {"_class_name": scheduler})
    assert (found.kind, found.steps, found.sampler, found.guidance_scale) == (kind, 4, "lcm", 1)


def test_the_scheduler_of_turbo_is_recognized_with_images_of_512_pixels():
    assert find("model", "sd2", EULER).kind == "a Turbo model"
    found = find("model", "sdxl", ANCESTRAL, {"sample_size": 64})
    assert (found.kind, found.steps, found.sampler, found.guidance_scale) == ("a Turbo model", 1, "euler_a", 1)


def test_the_scheduler_of_turbo_in_a_larger_model_is_only_a_doubt():
    found = find("model", "sdxl", ANCESTRAL)
    assert not found.kind and found.steps == 20 and "trailing spacing" in found.doubt
    assert not find("model", "sdxl", LEADING).doubt
    zero_terminal = EULER | {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    assert not find("model", "sd2", zero_terminal).doubt and not find("model", "sd2", zero_terminal).kind


def test_the_sampler_of_the_model_is_kept_where_it_suits_its_kind():
    assert find("sdxl-turbo", scheduler=ANCESTRAL).sampler == "euler_a"
    assert find("sdxl-turbo", scheduler=EULER).sampler == "euler"
    assert find("sdxl-turbo", scheduler={"_class_name": "DDIMScheduler"}).sampler == "euler_a"
    assert find("sdxs-512-0.9", "sd2", EULER | {"_class_name": "PNDMScheduler"}).sampler == "pndm"


def test_one_step_of_lightning_predicts_x0():
    keys = dict(find("sdxl_lightning_1step_x0").scheduler)
    assert keys == {"timestep_spacing": "trailing", "prediction_type": "sample"}


def test_damaged_origins_and_names_of_any_length_are_no_obstacle():
    for origin in (None, 3, [], "", "/", "models--", "x" * 100_000):
        assert not find("model", unet={"_name_or_path": origin}).kind
    assert not find("/").kind and not find("@").kind


@pytest.mark.parametrize(
    ("name", "kind", "steps"),
    [
        ("lcm-lora-sdv1-5", "an LCM", 4),
        ("sdxl_lightning_8step_lora", "a Lightning model", 8),
        ("Hyper-SD15-4steps-lora", "a Hyper-SD model", 4),
        ("sd_xl_turbo_lora_v1", "a Turbo model", 1),
    ],
)
def test_a_lora_for_few_steps_is_recognized(name, kind, steps):
    found = find_lora_defaults(name)
    assert found is not None and (found.kind, found.steps) == (kind, steps)
    assert find_lora_defaults("pixel-art-xl") is None


def test_every_rule_has_a_name_that_it_alone_is_for():
    """A rule behind one that takes all its names would never be used."""
    kinds = [rule.kind for rule in distillation.RULES]
    assert len(set(kinds)) == 7 and len({rule.pattern for rule in distillation.RULES}) == len(kinds)
