"""Small models with random weights: block types, key names, configurations and vocabulary are those of real ones."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from tests.helpers import ROOT

CLIP = ROOT / "diffusekit" / "model_files" / "clip"
SIZE = 64  # pixels of an image at their native size
CROSS_DOWN, CROSS_UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
DDIM = {"set_alpha_to_one": False, "clip_sample": False}
PNDM = {"set_alpha_to_one": False, "skip_prk_steps": True}
# What distinguishes each kind: the pipeline's class, the scheduler's class and settings, changes of the U-Net.
KINDS = {
    "sd1": ("StableDiffusionPipeline", "PNDMScheduler", PNDM, {}),
    "sd1-inpainting": ("StableDiffusionInpaintPipeline", "DDIMScheduler", DDIM, {"in_channels": 9}),
    "lcm": (
        "LatentConsistencyModelPipeline",
        "LCMScheduler",
        DDIM | {"original_inference_steps": 50},
        {"time_cond_proj_dim": 32},
    ),
    "sd2": ("StableDiffusionPipeline", "DDIMScheduler", DDIM | {"prediction_type": "v_prediction"}, {}),
    "sd2-zsnr": (
        "StableDiffusionPipeline",
        "DDIMScheduler",
        DDIM | {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
        {},
    ),
    "sd2-inpainting": ("StableDiffusionInpaintPipeline", "PNDMScheduler", PNDM, {"in_channels": 9}),
    "sd-turbo": ("StableDiffusionPipeline", "EulerDiscreteScheduler", {"timestep_spacing": "trailing"}, {}),
    "sdxl": ("StableDiffusionXLPipeline", "EulerDiscreteScheduler", {"timestep_spacing": "leading"}, {}),
    "sdxl-inpainting": (
        "StableDiffusionXLInpaintPipeline",
        "EulerDiscreteScheduler",
        {"timestep_spacing": "leading"},
        {"in_channels": 9},
    ),
    "sdxl-turbo": (
        "StableDiffusionXLPipeline",
        "EulerAncestralDiscreteScheduler",
        {"timestep_spacing": "trailing"},
        {},
    ),
}


class RandomModels(Mapping[str, Path]):
    """The folders of all kinds, each written when it is asked for first. Copy a folder before you change it."""

    def __init__(self, root: Path):
        self._root = root

    def __getitem__(self, kind: str) -> Path:
        folder = self._root / kind
        return folder if folder.exists() else write_model(folder, kind)

    def __iter__(self) -> Iterator[str]:
        return iter(KINDS)

    def __len__(self) -> int:
        return len(KINDS)

    def copy(self, kind: str, folder: Path) -> Path:
        return Path(shutil.copytree(self[kind], folder))


def write_model(folder: Path, kind: str) -> Path:
    """Write a model of a kind in diffusers layout, as its pipeline saves it."""
    import diffusers

    torch.manual_seed(0)
    pipeline, scheduler, noise, unet = KINDS[kind]
    is_xl = kind.startswith("sdxl")
    parts = _xl_parts(unet) if is_xl else _sd_parts(unet, is_second=kind.startswith(("sd2", "sd-turbo")))
    parts["vae"] = _vae(is_xl=is_xl)
    parts["scheduler"] = getattr(diffusers, scheduler)(**NOISE | noise)
    getattr(diffusers, pipeline)(**parts).save_pretrained(folder)
    return folder


def correct_end(pipeline) -> None:
    """Let SDXL's second encoder pool at the end token.

    By the 2 of its config.json, transformers pools at the highest id, which is that of an added token if there is one.
    """
    for module in pipeline.text_encoder_2.modules():
        if hasattr(module, "eos_token_id"):
            module.eos_token_id = pipeline.tokenizer_2.eos_token_id


def tokenizer(pad: str = "<|endoftext|>"):
    from transformers import CLIPTokenizer

    return CLIPTokenizer(str(CLIP / "vocab.json"), str(CLIP / "merges.txt"), pad_token=pad, model_max_length=77)


def text_encoder(*, width: int, layers: int, activation: str, projection: int = 0):
    """A CLIP text encoder; one with a projection is SDXL's second."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=49_408,
        hidden_size=width,
        projection_dim=projection or width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        hidden_act=activation,
        bos_token_id=0,  # as in the configurations on the hub, where these ids are wrong
        eos_token_id=2,
        pad_token_id=1,
    )
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config).eval()


def _vae(*, is_xl: bool):
    from diffusers import AutoencoderKL

    scale = {"scaling_factor": 0.13025, "force_upcast": True} if is_xl else {"scaling_factor": 0.18215}
    return AutoencoderKL(
        block_out_channels=(32, 32, 64, 64),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        sample_size=SIZE,
        **scale,
    )


def _sd_parts(changes: dict, *, is_second: bool) -> dict:
    """Text side and U-Net of Stable Diffusion 1.x or 2.x."""
    from diffusers import UNet2DConditionModel

    width = 64 if is_second else 32
    second = {"use_linear_projection": True, "attention_head_dim": [2, 4, 4, 4]} if is_second else {}
    unet = UNet2DConditionModel(
        **{
            "sample_size": SIZE // 8,
            "block_out_channels": (32, 64, 64, 64),
            "layers_per_block": 2,
            "down_block_types": (CROSS_DOWN, CROSS_DOWN, CROSS_DOWN, "DownBlock2D"),
            "up_block_types": ("UpBlock2D", CROSS_UP, CROSS_UP, CROSS_UP),
            "cross_attention_dim": width,
            "attention_head_dim": 8,
            **second,
            **changes,
        }
    )
    activation, layers = ("gelu", 3) if is_second else ("quick_gelu", 2)
    return {
        "tokenizer": tokenizer("!" if is_second else "<|endoftext|>"),
        "text_encoder": text_encoder(width=width, layers=layers, activation=activation),
        "unet": unet,
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }


def _xl_parts(changes: dict) -> dict:
    """Text side and U-Net of Stable Diffusion XL."""
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel(
        **{
            "sample_size": SIZE // 8,
            "block_out_channels": (32, 64, 64),
            "layers_per_block": 2,
            "down_block_types": ("DownBlock2D", CROSS_DOWN, CROSS_DOWN),
            "up_block_types": (CROSS_UP, CROSS_UP, "UpBlock2D"),
            "transformer_layers_per_block": [1, 2, 2],
            "attention_head_dim": [2, 4, 4],
            "use_linear_projection": True,
            "cross_attention_dim": 32 + 48,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 48 + 6 * 8,
            **changes,
        }
    )
    return {
        "tokenizer": tokenizer(),
        "tokenizer_2": tokenizer("!"),
        "text_encoder": text_encoder(width=32, layers=2, activation="quick_gelu"),
        "text_encoder_2": text_encoder(width=48, layers=3, activation="gelu", projection=48),
        "unet": unet,
        "add_watermarker": False,
    }
