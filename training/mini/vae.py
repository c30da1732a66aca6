"""The autoencoder: images to latents with an eighth of their side, and back.

Losses: L1, squared error (for colors that are far off), L1 of image gradients at three scales, a very small KL term,
and scale equivariance: a latent scaled to half must decode to the image scaled to half (arXiv 2502.14831). The last
one makes latents easier to denoise. At the end each latent channel gets mean 0 and variance 1, folded into the weights,
so `scaling_factor` is 1. After the U-Net, the decoder alone is trained a little longer. Fine-tuning can train both,
with latents held near those of before. Then the U-Net, which knows those, must follow.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

from .config import Recipe
from .dataset import to_tensor
from .optimizers import Muon, set_learning_rate, update_weights, warm_then_decay
from .runtime import Runtime, TimeBudget
from .world.renderer import render

LossFunction = Callable[[AutoencoderKL, torch.Tensor, int], torch.Tensor]
_LATENT_DISTANCE_WEIGHT = 0.1
_END_LAYERS = ("conv_in.", "conv_out.", "quant_conv.")  # optimized by AdamW: these are not hidden matrices


def build(recipe: Recipe) -> AutoencoderKL:
    levels = len(recipe.vae_channels)
    return AutoencoderKL(
        block_out_channels=recipe.vae_channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=1,
        latent_channels=recipe.latent_channels,
        norm_num_groups=8,
        sample_size=recipe.side,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )


def _gradient_loss(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the L1 distance of the image gradients of two batches, at three scales."""
    total = a.new_zeros(())
    for _ in range(3):
        total = total + F.l1_loss(a.diff(dim=-1), b.diff(dim=-1)) + F.l1_loss(a.diff(dim=-2), b.diff(dim=-2))
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return total


def _image_loss(decoded: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    pixels = F.l1_loss(decoded, images) + 6 * F.mse_loss(decoded, images)
    return pixels + 0.5 * _gradient_loss(decoded, images)


def _autoencoder_loss(vae: AutoencoderKL, images: torch.Tensor, step: int) -> torch.Tensor:
    """Encode, decode and compare. Every fourth step adds scale equivariance."""
    return _posterior_loss(vae, vae.encode(images).latent_dist, images, step)


def _posterior_loss(
    vae: AutoencoderKL, posterior: DiagonalGaussianDistribution, images: torch.Tensor, step: int
) -> torch.Tensor:
    latents = posterior.sample()
    loss = _image_loss(vae.decode(latents).sample.float(), images)
    loss = loss + 1e-4 * posterior.kl().mean() / latents[0].numel()
    if step % 4 == 0:
        half = vae.decode(F.avg_pool2d(latents, 2)).sample.float()
        loss = loss + 0.25 * F.l1_loss(half, F.avg_pool2d(images, 2))
    return loss


def _decoder_loss(vae: AutoencoderKL, images: torch.Tensor, step: int) -> torch.Tensor:
    """Decode latents with a little noise: the latents of the U-Net are not exact either."""
    with torch.no_grad():
        latents = vae.encode(images).latent_dist.sample().float()
        latents = latents + 0.05 * torch.randn_like(latents)
    return _image_loss(vae.decode(latents).sample.float(), images)


def _finetuning_loss(before: AutoencoderKL) -> LossFunction:
    """The loss of the autoencoder, and the squared distance of its latents to those of `before`."""

    def loss(vae: AutoencoderKL, images: torch.Tensor, step: int) -> torch.Tensor:
        with torch.no_grad():
            old_mean = before.encode(images).latent_dist.mean
        posterior = vae.encode(images).latent_dist
        distance = F.mse_loss(posterior.mean[:, : old_mean.shape[1]].float(), old_mean.float())
        return _posterior_loss(vae, posterior, images, step) + _LATENT_DISTANCE_WEIGHT * distance

    return loss


def train(recipe: Recipe, runtime: Runtime, minutes: float, steps: int | None = None) -> AutoencoderKL:
    """Train an autoencoder from scratch. Its latents have mean 0 and variance 1."""
    torch.manual_seed(runtime.seed)
    vae = build(recipe).to(runtime.device)
    finished = runtime.load("vae-done")
    if finished is not None:
        vae.load_state_dict(finished)
        return vae.eval()
    images = _Training("vae", vae, vae, _autoencoder_loss, recipe, runtime).run(TimeBudget(minutes, steps))
    _normalize_latents(vae, to_tensor(images[:500]).to(runtime.device))
    runtime.save("vae-done", vae.state_dict())
    return vae


def train_decoder(
    recipe: Recipe, runtime: Runtime, minutes: float, vae: AutoencoderKL, steps: int | None = None
) -> None:
    """Train the decoder alone, in place. The latents stay what the U-Net knows."""
    decoder = torch.nn.ModuleList([vae.post_quant_conv, vae.decoder])
    training = _Training("decoder", vae, decoder, _decoder_loss, recipe, runtime)
    _continue(training, TimeBudget(minutes, steps), vae.config.latent_channels)


def finetune(
    recipe: Recipe,
    runtime: Runtime,
    minutes: float,
    vae: AutoencoderKL,
    before: AutoencoderKL,
    steps: int | None = None,
) -> None:
    """Train encoder and decoder, in place. The first channels of the latents stay near those of `before`."""
    loss = _finetuning_loss(before.requires_grad_(False))
    training = _Training("vae-further", vae, vae, loss, recipe, runtime)
    _continue(training, TimeBudget(minutes, steps), before.config.latent_channels)


def _continue(training: "_Training", budget: TimeBudget, known_channels: int) -> None:
    """Train a finished autoencoder further, unless that is done already.

    A U-Net knows the first `known_channels` of the latents. Only the others are normalized.
    """
    vae, runtime = training.vae, training.runtime
    torch.manual_seed(runtime.seed + 4)
    finished = runtime.load(f"{training.name}-done")
    if finished is None:
        images = training.run(budget)
        _normalize_latents(vae, to_tensor(images[:500]).to(runtime.device), known_channels)
        runtime.save(f"{training.name}-done", vae.state_dict())
    else:
        vae.load_state_dict(finished)


@dataclass(frozen=True)
class _Training:
    """Training on random crops of `trained`, the autoencoder or a part of it. Its state is saved under `name`."""

    name: str
    vae: AutoencoderKL
    trained: torch.nn.Module
    loss: LossFunction
    recipe: Recipe
    runtime: Runtime

    def run(self, budget: TimeBudget) -> np.ndarray:
        """Train until the budget is spent, or continue an interrupted run. Returns the images (N, side, side, 3)."""
        recipe, runtime, name = self.recipe, self.runtime, self.name
        parameters, optimizers = list(self.trained.parameters()), _make_optimizers(self.trained)
        self._resume(optimizers, budget)
        chunks = render(recipe.domain, recipe.vae_images, runtime.seed, recipe.side)
        images = np.concatenate([chunk.images for chunk in chunks])
        runtime.log(f"{name}: {len(images)} images, {sum(p.numel() for p in parameters) / 1e6:.1f} M parameters")
        saved_at = budget.seconds
        while budget.progress < 1:
            batch = _crop(images, recipe, np.random.default_rng((runtime.seed, budget.step))).to(runtime.device)
            set_learning_rate(
                optimizers, recipe.learning_rate * warm_then_decay(budget.progress, budget.step, flat=0.5)
            )
            with runtime.autocast():
                loss = self.loss(self.vae, batch, budget.step)
            loss.backward()
            update_weights(optimizers, parameters)
            budget.step += 1
            if budget.step % 400 == 0:
                runtime.log(f"{name}: step {budget.step}, {budget.progress:.0%}, loss {loss.item():.4f}")
            if budget.seconds - saved_at > 120:
                saved_at = budget.seconds
                self._save(optimizers, budget)
        self.vae.eval()
        error = psnr(self.vae, to_tensor(images[:200]).to(runtime.device))
        runtime.log(f"{name}: {budget.step} steps in {budget.seconds / 60:.1f} minutes, PSNR {error:.2f} dB")
        return images

    def _resume(self, optimizers: list[torch.optim.Optimizer], budget: TimeBudget) -> None:
        state = self.runtime.load(self.name)
        if state is None:
            return
        self.vae.load_state_dict(state["vae"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        budget.resume(state["clock"])

    def _save(self, optimizers: list[torch.optim.Optimizer], budget: TimeBudget) -> None:
        states = [optimizer.state_dict() for optimizer in optimizers]
        state = {"vae": self.vae.state_dict(), "optimizers": states, "clock": budget.state()}
        self.runtime.save(self.name, state)


def _make_optimizers(trained: torch.nn.Module) -> list[torch.optim.Optimizer]:
    """Muon for the hidden convolutions, AdamW for the rest."""
    named = list(trained.named_parameters())
    hidden = [p for n, p in named if p.ndim == 4 and not any(end in n for end in _END_LAYERS)]
    hidden_ids = {id(p) for p in hidden}
    rest = [p for _, p in named if id(p) not in hidden_ids]
    return [Muon(hidden), torch.optim.AdamW(rest, betas=(0.9, 0.99), weight_decay=0.0)]


def _crop(images: np.ndarray, recipe: Recipe, rng: np.random.Generator) -> torch.Tensor:
    """Choose images and a square of each: (B, 3, crop, crop)."""
    size, positions = recipe.vae_crop, recipe.side - recipe.vae_crop + 1
    chosen = zip(
        rng.integers(len(images), size=recipe.vae_batch),
        rng.integers(positions, size=(recipe.vae_batch, 2)),
        strict=True,
    )
    return to_tensor(np.stack([images[i, y : y + size, x : x + size] for i, (y, x) in chosen]))


@torch.no_grad()
def _normalize_latents(vae: AutoencoderKL, images: torch.Tensor, first: int = 0) -> None:
    """Give every latent channel from `first` on mean 0 and variance 1, in `quant_conv` and `post_quant_conv`."""
    posteriors = [vae.encode(batch).latent_dist for batch in images.split(50)]
    sample = torch.cat([p.mean + p.std * torch.randn_like(p.std) for p in posteriors])
    mean, std = sample.mean((0, 2, 3)), sample.std((0, 2, 3))
    mean[:first], std[:first] = 0.0, 1.0
    channels = len(mean)
    inside, outside = vae.quant_conv, vae.post_quant_conv
    inside.weight[:channels] /= std[:, None, None, None]
    inside.bias[:channels] = (inside.bias[:channels] - mean) / std
    inside.bias[channels:] -= 2 * std.log()
    outside.bias += (outside.weight[:, :, 0, 0] * mean).sum(1)
    outside.weight *= std[None, :, None, None]


@torch.no_grad()
def psnr(vae: AutoencoderKL, images: torch.Tensor) -> float:
    """Return the peak signal-to-noise ratio in dB of encoding and decoding `images` in [-1, 1]."""
    decoded = torch.cat([vae.decode(vae.encode(batch).latent_dist.mode()).sample for batch in images.split(50)])
    error = ((decoded.clamp(-1, 1) - images) / 2).pow(2).mean((1, 2, 3))
    return (-10 * error.log10()).mean().item()
