"""What the server of `crash` imports before it forks. It computes nothing: threads that torch starts die in a fork."""

import diffusers
import transformers
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

import diffusekit.inversion.trainer
import diffusekit.models.build

__all__ = [
    "AutoencoderKL",
    "CLIPTextModel",
    "CLIPTokenizer",
    "CLIPVisionModelWithProjection",
    "UNet2DConditionModel",
    "diffusekit",
    "diffusers",
    "transformers",
]
