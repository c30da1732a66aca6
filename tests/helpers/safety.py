"""A small safety checker with random weights, in a model's folder, as the models of the hub bring it."""

import json
from pathlib import Path

import torch

ALL, NONE = -2.0, 2.0  # cosines are between them


def add_checker(folder: Path, *, threshold: float, old_names: bool = True) -> Path:
    """Write a checker into a model's folder. It flags images whose cosine to its first concept is above `threshold`.

    `old_names` are the keys of the files on the hub, which older versions of transformers wrote.
    """
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from safetensors.torch import load_file, save_file
    from transformers import CLIPConfig

    torch.manual_seed(1)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = small | {"image_size": 32, "patch_size": 8}
    checker = StableDiffusionSafetyChecker(CLIPConfig(text_config=small, vision_config=vision, projection_dim=8))
    checker.concept_embeds.data = torch.randn(17, 8)
    checker.special_care_embeds.data = torch.randn(3, 8)
    checker.special_care_embeds_weights.data.fill_(NONE)
    checker.concept_embeds_weights.data.fill_(NONE)
    checker.concept_embeds_weights.data[0] = threshold
    checker.save_pretrained(folder / "safety_checker")
    file = folder / "safety_checker" / "model.safetensors"
    if old_names:
        tensors = load_file(file)
        old = {f"vision_model.{k}" if k.startswith("vision_model.") else k: v for k, v in tensors.items()}
        old["vision_model.vision_model.embeddings.position_ids"] = torch.arange(17)[None]
        save_file(old, file, metadata={"format": "pt"})
    (folder / "feature_extractor").mkdir()
    processor = {
        "image_processor_type": "CLIPImageProcessor",
        "crop_size": {"height": 32, "width": 32},
        "size": {"shortest_edge": 32},
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
    }
    (folder / "feature_extractor" / "preprocessor_config.json").write_text(json.dumps(processor))
    edit_index(folder, ["stable_diffusion", "StableDiffusionSafetyChecker"])
    return folder


def edit_index(folder: Path, checker: list) -> None:
    """Name a safety checker in a model's index."""
    path = folder / "model_index.json"
    extractor = ["transformers", "CLIPImageProcessor"]
    changes = {"safety_checker": checker, "feature_extractor": extractor, "requires_safety_checker": True}
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
