"""From the same prompt and seed, our latents and those of diffusers' own pipelines are equal."""

import logging
import re

import pytest

from diffusekit import models, schedule
from tests.helpers import ROOT, parity

ROWS = re.compile(r"^\| (\S+) \| (.*) \|$", re.M)


@pytest.fixture(scope="module")
def pairs(random_models):
    """Models by kind. The last one is kept, because tests of one kind follow each other."""
    logging.getLogger("diffusekit.pipeline").setLevel(logging.ERROR)  # few steps spoil images, which nobody sees here
    loaded = {}

    def get(kind):
        if kind not in loaded:
            loaded.clear()
            loaded[kind] = parity.load_pair(models.MINI if kind == "mini" else random_models[kind])
        return loaded[kind]

    yield get
    logging.getLogger("diffusekit.pipeline").setLevel(logging.NOTSET)


@pytest.mark.parametrize(
    "kind,task,sampler", [("sd1", "text", "dpm++_2m"), ("sd1", "image", "euler_a"), ("sdxl", "image", "ddim")]
)
def test_one_of_each(pairs, kind, task, sampler):
    assert parity.difference(pairs(kind), sampler, task=task) < parity.LIMIT


@pytest.mark.slow
@pytest.mark.parametrize("sampler", schedule.SAMPLERS)
@pytest.mark.parametrize("kind", ["mini", "sd1", "sd2", "sd2-zsnr", "sdxl"])
def test_every_family_and_sampler(pairs, kind, sampler):
    assert parity.difference(pairs(kind), sampler) < parity.LIMIT


@pytest.mark.slow
@pytest.mark.parametrize("kind,task", [("lcm", "text"), ("lcm", "image")])
def test_latent_consistency_models(pairs, kind, task):
    assert parity.difference(pairs(kind), "lcm", task=task) < parity.LIMIT


@pytest.mark.parametrize("kind", ["sd2-zsnr", pytest.param("sdxl", marks=pytest.mark.slow)])
def test_rescaled_guidance(pairs, kind):
    """Lin et al., 2023: for models with zero terminal SNR. It changes the latents, and so does its strength."""
    pair = pairs(kind)
    for share in (0.3, 0.7):
        assert parity.difference(pair, "ddim", guidance_rescale=share) < parity.LIMIT


def test_without_guidance_and_without_a_negative_prompt(pairs):
    pair = pairs("sd2-zsnr")
    assert parity.difference(pair, "euler", guidance=1.0, negative="") < parity.LIMIT
    assert parity.difference(pair, "euler", negative="") < parity.LIMIT


def test_the_document_has_every_sampler_and_no_large_difference():
    text = (ROOT / "docs" / "parity.md").read_text()
    tables = text.split("\n## ")[1:3]
    assert [table.partition("\n")[0] for table in tables] == ["Images from text", "Images from an image"]
    for table in tables:
        rows = {name: cells.split(" | ") for name, cells in ROWS.findall(table)}
        assert set(schedule.SAMPLERS) <= rows.keys()
        for name in schedule.SAMPLERS:
            assert all(float(cell) < parity.LIMIT for cell in rows[name] if cell.strip())
