"""What tests share: the embedded model, small random models of real families, and an oracle."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # threads that wait must not keep the cores from the other workers
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")

from pathlib import Path

import pytest
import torch

from diffusekit import models
from tests.helpers.random_models import RandomModels
from tests.helpers.shared_machine import machine_share


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    with machine_share(alone=item.get_closest_marker("alone") is not None):
        return (yield)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    """Every test runs in an empty folder with no settings of the user's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in [n for n in os.environ if n.startswith("DIFFUSEKIT_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def mini() -> models.Model:
    return models.load("mini", "cpu")


@pytest.fixture(scope="session")
def families(tmp_path_factory) -> dict[str, Path]:
    """Random-weight miniatures of Stable Diffusion 1.x (epsilon) and 2.x (v-prediction, wider text)."""
    folder = tmp_path_factory.mktemp("families")
    return {
        "sd1": _miniature(folder / "sd1", "epsilon", width=32, heads=4, linear=False),
        "sd2": _miniature(folder / "sd2", "v_prediction", width=64, heads=(2, 4), linear=True),
    }


@pytest.fixture(scope="session")
def random_models(tmp_path_factory) -> RandomModels:
    """Folders of small random models of every kind: `random_models["sdxl"]`."""
    return RandomModels(tmp_path_factory.mktemp("random_models"))


def _miniature(folder: Path, prediction: str, *, width: int, heads, linear: bool) -> Path:
    from diffusers import (
        AutoencoderKL,
        PNDMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(models.MINI / "tokenizer")
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    unet = UNet2DConditionModel(
        block_out_channels=(32, 64),
        layers_per_block=1,
        sample_size=8,
        attention_head_dim=heads,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        cross_attention_dim=width,
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        use_linear_projection=linear,
    )
    vae = AutoencoderKL(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
    )
    scheduler = PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction,
    )
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder
