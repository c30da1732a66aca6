"""How fast: our loops beside diffusers' own algorithms, same weights, same batch, taking turns in one process.

Times wander on shared machines; a ratio from one run does not.
"""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from PIL import Image

from . import attention, models
from .embeddings import LearnedToken, Vocabulary
from .inversion import dataset, placeholder
from .inversion.batches import Batches
from .inversion.captions import make_captions
from .inversion.encoded_dataset import encode
from .inversion.optimizer import EmbeddingOptimizer
from .models import Model
from .pipeline import generate, stream
from .settings import InvertSettings
from .visualise import TraceRecorder

CLIP_TABLE = (49408, 768)
ROUNDS = 4


@dataclass(frozen=True)
class Contest:
    """Two ways to do the same: seconds per step (median), and bytes that the optimizer and its
    gradients hold."""

    ours: float
    reference: float
    our_memory: int
    reference_memory: int
    steps: int

    @property
    def ratio(self) -> float:
        return self.reference / self.ours


def invert(
    model: str = "mini",
    *,
    batch: int = 1,
    steps: int = 40,
    clip_table: bool = False,
    device: str = "auto",
    dtype: str = "float32",
) -> Contest:
    """Steps of textual inversion beside the algorithm of diffusers' example script.

    The reference opens, resizes and encodes the pictures at every step, trains the whole token table with
    AdamW and restores all other rows; written anew from examples/textual_inversion. `clip_table` exchanges
    text encoder and U-Net for ones of random weights with a token table of CLIP's size.
    """
    base = models.load(model, device, dtype)
    subject = _with_clip_table(base) if clip_table else base
    with tempfile.TemporaryDirectory() as folder:
        paths = _pictures(Path(folder), base.native_size)
        ours, our_memory = _ours(subject, Path(folder), batch)
        theirs, their_memory = _reference(subject, paths, batch)
        our_seconds, their_seconds = _in_turns([ours, theirs], steps)
    return Contest(our_seconds, their_seconds, our_memory, their_memory, steps)


@dataclass(frozen=True)
class Watched:
    """Seconds for a picture (median): made, made and recorded, made with every word's map taken."""

    plain: float
    recorded: float
    attended: float
    pictures: int


def visualise(
    model: str = "mini", *, steps: int = 20, pictures: int = 12, device: str = "auto", dtype: str = "auto"
) -> Watched:
    """What it costs to watch: pictures plain, with a `Recording`, and with cross-attention recorded."""
    settings: dict[str, Any] = {"model": model, "steps": steps, "device": device, "dtype": dtype}

    def plain(number: int) -> None:
        for _ in stream("a red cat on the grass", seed=number, **settings):
            pass

    def recorded(number: int) -> None:
        for _ in TraceRecorder(stream("a red cat on the grass", seed=number, **settings)):
            pass

    def attended(number: int) -> None:
        running = stream("a red cat on the grass", seed=number, **settings)
        with attention.record(running.model.unet, guided=True) as maps:
            for _ in running:
                maps.maps()

    times = _in_turns([plain, recorded, attended], pictures)
    return Watched(times[0], times[1], times[2], pictures)


@dataclass(frozen=True)
class Hurried:
    """Seconds for a picture (median), decode included: as usual, and with the weights for few steps."""

    plain: float
    fast: float
    pictures: int

    @property
    def ratio(self) -> float:
        return self.plain / self.fast


def fast(model: str = "mini", *, pictures: int = 12, device: str = "auto", dtype: str = "auto") -> Hurried:
    """What `--fast` saves: pictures at default settings, and at those of few steps without guidance."""
    settings: dict[str, Any] = {"model": model, "device": device, "dtype": dtype}

    def plain(number: int) -> None:
        generate("a red cat on the grass", seed=number, **settings)

    def hurried(number: int) -> None:
        generate("a red cat on the grass", seed=number, fast=True, **settings)

    times = _in_turns([plain, hurried], pictures)
    return Hurried(times[0], times[1], pictures)


def _in_turns(contestants: list[Callable[[int], object]], steps: int) -> list[float]:
    """Median seconds per step of each: warmed up, then in rounds A B B A."""
    for step in contestants:
        for number in range(3):
            step(number)
    times: list[list[float]] = [[] for _ in contestants]
    number = 3
    for turn in range(ROUNDS):
        order = range(len(contestants)) if turn % 2 == 0 else reversed(range(len(contestants)))
        for which in order:
            for offset in range(-(-steps // ROUNDS)):
                _wait()
                started = time.perf_counter()
                contestants[which](number + offset)
                _wait()
                times[which].append(time.perf_counter() - started)
        number += -(-steps // ROUNDS)
    return [median(each) for each in times]


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _pictures(folder: Path, side: int) -> list[Path]:
    """Five pictures of the model's own size: the least there can be to resize."""
    rng, paths = np.random.default_rng(0), []
    for i in range(5):
        coarse = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8))
        paths.append(folder / f"{i}.jpg")
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(paths[-1], quality=90)
    return paths


def _ours(model: Model, folder: Path, batch: int) -> tuple[Callable[[int], object], int]:
    settings = InvertSettings(pictures=str(folder), batch=batch)
    vocabulary = Vocabulary(model)
    holder = placeholder.create(model, vocabulary, "cat", count=1, start="word", norm_bound=1.0)
    token = LearnedToken("bench", "S*", (holder.vectors.detach().cpu(),), {})
    data = dataset.collect(folder)
    encoded = encode(model, data, side=model.native_size)
    samples = Batches(model, encoded, make_captions(data, "object", "templates"), token, 0)
    accelerator = Accelerator(cpu=model.placement.device.type == "cpu")
    learner = EmbeddingOptimizer(model, vocabulary, holder, samples, settings, accelerator)
    return learner.step, 4 * holder.vectors.numel() * 4


def _reference(model: Model, paths: list[Path], batch: int) -> tuple[Callable[[int], object], int]:
    """The algorithm of diffusers' textual_inversion.py, a step at a time."""
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    device = model.placement.device
    (tokenizer,), (encoder,) = copy.deepcopy((model.tokenizers, model.text_encoders))
    tokenizer.add_tokens("<bench>")
    new = tokenizer.convert_tokens_to_ids("<bench>")
    encoder.resize_token_embeddings(max(len(tokenizer), encoder.config.vocab_size + 1))
    table = encoder.get_input_embeddings().weight.requires_grad_(True)
    original = table.detach().clone()
    optimizer = torch.optim.AdamW([table], lr=5e-3, weight_decay=1e-2)
    scheduler: Any = DDPMScheduler.from_config(model.scheduler_config)
    others = torch.ones(len(table), dtype=torch.bool, device=device)
    others[new] = False
    side, unet, vae = model.native_size, model.unet, model.vae

    def picture(number: int) -> torch.Tensor:
        with Image.open(paths[number % len(paths)]) as file:
            resized = file.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
        if np.random.random() < 0.5:
            resized = resized.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return torch.from_numpy((np.array(resized) / 127.5 - 1.0).astype(np.float32)).permute(2, 0, 1)

    def step(number: int) -> float:
        pixels = torch.stack([picture(number * batch + i) for i in range(batch)]).to(device, vae.dtype)
        ids = tokenizer(
            ["a photo of a <bench>"] * batch,
            padding="max_length",
            truncation=True,
            max_length=encoder.config.max_position_embeddings,
            return_tensors="pt",
        ).input_ids.to(device)
        latents = vae.encode(pixels).latent_dist.sample().detach() * vae.config.scaling_factor
        noise = torch.randn_like(latents)
        t = torch.randint(0, 1000, (batch,), device=device)
        noised = scheduler.add_noise(latents, noise, t)
        states = encoder(ids).last_hidden_state.to(unet.dtype)
        found = unet(noised.to(unet.dtype), t, states).sample
        velocity = scheduler.config.prediction_type == "v_prediction"
        wanted = scheduler.get_velocity(latents, noise, t) if velocity else noise
        loss = F.mse_loss(found.float(), wanted.float())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            table[others] = original[others]
        return loss.item()

    return step, 4 * table.numel() * 4


def _with_clip_table(model: Model) -> Model:
    """The model's kind with a token table of CLIP's size, random weights."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    (old,) = (encoder.config for encoder in model.text_encoders)
    rows, width = CLIP_TABLE
    config = CLIPTextConfig(
        vocab_size=rows,
        hidden_size=width,
        intermediate_size=2 * width,
        num_attention_heads=12,
        num_hidden_layers=old.num_hidden_layers,
        max_position_embeddings=old.max_position_embeddings,
        bos_token_id=old.bos_token_id,
        eos_token_id=old.eos_token_id,
        pad_token_id=old.pad_token_id,
    )
    device, dtype = model.placement.device, model.placement.dtype
    encoder: Any = CLIPTextModel(config)
    encoder = encoder.eval().requires_grad_(False).to(device)
    shape = dict(model.unet.config) | {"cross_attention_dim": width}
    unet: Any = UNet2DConditionModel.from_config(shape)
    unet = unet.eval().requires_grad_(False).to(device, dtype)
    return replace(model, text_encoders=(encoder,), unet=unet)
