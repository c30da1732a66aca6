"""Benchmark our loops against diffusers' own algorithms: same weights, same batch, alternating in one process.

Times vary on shared machines. A ratio from one run does not.
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
from .embeddings import LearnedToken, make_vocabularies
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
PROMPT = "a red cat on the grass"


@dataclass(frozen=True)
class InvertTimings:
    """Median seconds per step, and the bytes of what is trained with its gradient and optimizer state."""

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
) -> InvertTimings:
    """Time steps of textual inversion beside the algorithm of diffusers' example script.

    `clip_table` replaces text encoder and U-Net by ones of random weights with a token table of CLIP's size.
    """
    base = models.load(model, device, dtype)
    subject = _with_clip_table(base) if clip_table else base
    with tempfile.TemporaryDirectory() as folder:
        paths = write_images(Path(folder), base.native_size)
        ours, our_memory = _ours(subject, Path(folder), batch)
        reference = ReferenceInversion(subject, paths, batch)
        our_seconds, reference_seconds = time_in_turns([ours, reference.step], steps)
    return InvertTimings(our_seconds, reference_seconds, our_memory, _trained_bytes(reference.table), steps)


@dataclass(frozen=True)
class VisualiseTimings:
    """Median seconds per image: plain, with its trace recorded, and with the attention of every step read."""

    plain: float
    recorded: float
    attended: float
    pictures: int


def visualise(
    model: str = "mini", *, steps: int = 20, pictures: int = 12, device: str = "auto", dtype: str = "auto"
) -> VisualiseTimings:
    """Time images plain, with a `TraceRecorder`, and with cross-attention recorded."""
    settings: dict[str, Any] = {"model": model, "steps": steps, "device": device, "dtype": dtype}

    def plain(number: int) -> None:
        for _ in stream(PROMPT, seed=number, **settings):
            pass

    def recorded(number: int) -> None:
        for _ in TraceRecorder(stream(PROMPT, seed=number, **settings)):
            pass

    def attended(number: int) -> None:
        generation = stream(PROMPT, seed=number, **settings)
        with attention.record(generation.model.unet, guided=True) as recorder:
            for _ in generation:
                recorder.maps()

    medians = time_in_turns([plain, recorded, attended], pictures)
    return VisualiseTimings(plain=medians[0], recorded=medians[1], attended=medians[2], pictures=pictures)


@dataclass(frozen=True)
class FastTimings:
    """Median seconds per image, decoding included: by default, and with the few-step LoRA."""

    plain: float
    fast: float
    pictures: int

    @property
    def ratio(self) -> float:
        return self.plain / self.fast


def fast(model: str = "mini", *, pictures: int = 12, device: str = "auto", dtype: str = "auto") -> FastTimings:
    """Time images at default settings, and with `fast`: few steps without guidance."""
    settings: dict[str, Any] = {"model": model, "device": device, "dtype": dtype}

    def plain(number: int) -> None:
        generate(PROMPT, seed=number, **settings)

    def few_steps(number: int) -> None:
        generate(PROMPT, seed=number, fast=True, **settings)

    medians = time_in_turns([plain, few_steps], pictures)
    return FastTimings(plain=medians[0], fast=medians[1], pictures=pictures)


def time_in_turns(candidates: list[Callable[[int], object]], calls: int) -> list[float]:
    """Return the median seconds per call of each candidate: three calls to warm up, then rounds A B B A.

    Every candidate is called with a number, which is the same for all candidates of a turn.
    """
    for call in candidates:
        for number in range(3):
            call(number)
    times: list[list[float]] = [[] for _ in candidates]
    number, per_round = 3, -(-calls // ROUNDS)
    for turn in range(ROUNDS):
        order = range(len(candidates)) if turn % 2 == 0 else reversed(range(len(candidates)))
        for which in order:
            for offset in range(per_round):
                _synchronize()
                started = time.perf_counter()
                candidates[which](number + offset)
                _synchronize()
                times[which].append(time.perf_counter() - started)
        number += per_round
    return [median(each) for each in times]


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def write_images(folder: Path, size: int) -> list[Path]:
    """Write five JPEG images of the model's own size, so that resizing costs as little as it can."""
    rng, paths = np.random.default_rng(0), []
    for i in range(5):
        coarse = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8))
        paths.append(folder / f"{i}.jpg")
        coarse.resize((size, size), Image.Resampling.BICUBIC).save(paths[-1], quality=90)
    return paths


def _trained_bytes(weights: torch.Tensor) -> int:
    """Bytes of float32 weights with their gradient and AdamW's two moments."""
    return 4 * weights.numel() * 4


def _ours(model: Model, folder: Path, batch: int) -> tuple[Callable[[int], object], int]:
    settings = InvertSettings(pictures=str(folder), batch=batch)
    vocabularies = make_vocabularies(model)
    holders = placeholder.create(model, vocabularies, "cat", count=1, start="word", norm_bound=1.0)
    token = LearnedToken("bench", "S*", tuple(each.vectors.detach().cpu() for each in holders), {})
    data = dataset.collect(folder)
    encoded = encode(model, data, side=model.native_size)
    samples = Batches(model, encoded, make_captions(data, "object", "templates"), token, 0)
    accelerator = Accelerator(cpu=model.placement.device.type == "cpu")
    learner = EmbeddingOptimizer(model, holders, samples, settings, accelerator)
    return learner.step, sum(_trained_bytes(each.vectors) for each in holders)


class ReferenceInversion:
    """diffusers' examples/textual_inversion, written anew: one call of `step` is one training step.

    Every step opens, resizes and encodes its images, trains the whole `table` with AdamW, and restores the rows
    of `others` to `original`.
    """

    def __init__(self, model: Model, paths: list[Path], batch: int):
        from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

        self._model, self._paths, self._batch = model, paths, batch
        (self._tokenizer,), (self._encoder,) = copy.deepcopy((model.tokenizers, model.text_encoders))
        self._tokenizer.add_tokens("<bench>")
        self._encoder.resize_token_embeddings(max(len(self._tokenizer), self._encoder.config.vocab_size + 1))
        self.table = self._encoder.get_input_embeddings().weight.requires_grad_(True)
        self.original = self.table.detach().clone()
        self.others = torch.ones(len(self.table), dtype=torch.bool, device=model.placement.device)
        self.others[self._tokenizer.convert_tokens_to_ids("<bench>")] = False
        self._optimizer = torch.optim.AdamW([self.table], lr=5e-3, weight_decay=1e-2)
        self._scheduler: Any = DDPMScheduler.from_config(model.scheduler_config)

    def step(self, number: int) -> float:
        """Train on batch `number`; returns its loss."""
        unet, vae, scheduler = self._model.unet, self._model.vae, self._scheduler
        pixels = torch.stack([self._pixels(number * self._batch + i) for i in range(self._batch)])
        distribution = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist
        latents = distribution.sample().detach() * vae.config.scaling_factor
        noise = torch.randn_like(latents)
        t = torch.randint(0, 1000, (self._batch,), device=latents.device)
        noised = scheduler.add_noise(latents, noise, t)
        output = unet(noised.to(unet.dtype), t, self._states().to(unet.dtype)).sample
        velocity = scheduler.config.prediction_type == "v_prediction"
        target = scheduler.get_velocity(latents, noise, t) if velocity else noise
        loss = F.mse_loss(output.float(), target.float())
        loss.backward()
        self._optimizer.step()
        self._optimizer.zero_grad()
        with torch.no_grad():
            self.table[self.others] = self.original[self.others]
        return loss.item()

    def _states(self) -> torch.Tensor:
        ids = self._tokenizer(
            ["a photo of a <bench>"] * self._batch,
            padding="max_length",
            truncation=True,
            max_length=self._encoder.config.max_position_embeddings,
            return_tensors="pt",
        ).input_ids
        return self._encoder(ids.to(self._encoder.device)).last_hidden_state

    def _pixels(self, number: int) -> torch.Tensor:
        size = self._model.native_size
        with Image.open(self._paths[number % len(self._paths)]) as file:
            resized = file.convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
        if np.random.random() < 0.5:
            resized = resized.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return torch.from_numpy((np.array(resized) / 127.5 - 1.0).astype(np.float32)).permute(2, 0, 1)


def _with_clip_table(model: Model) -> Model:
    """Copy a model with a token table of CLIP's size and random weights."""
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
