"""The autoencoder: pictures to latents an eighth of their side, and back.

Losses: L1, squared error (for colors that are far off), L1 of image gradients at three scales, a
whisper of KL, and scale equivariance (a latent shrunk to half must decode to the picture shrunk to
half: arXiv 2502.14831), which makes latents easier to denoise. At the end each latent channel is given
mean 0 and variance 1 by folding the change into the weights, so that `scaling_factor` is 1. When the
U-Net is done, the decoder alone is trained a little longer. In another sitting both can go on, with
latents tied to what they were: then the U-Net, which knows those, must follow.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

from .config import Recipe
from .dataset import render, to_tensor
from .optimizers import Muon, warm_then_decay
from .runtime import Runtime, TimeBudget

LossOf = Callable[[AutoencoderKL, torch.Tensor, int], torch.Tensor]
_TIE = 0.1  # weight of the squared distance of latents to what they were
_ENDS = ("conv_in.", "conv_out.", "quant_conv.")  # their weights are no hidden matrices


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


def _edges(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """L1 between the image gradients of two batches of pictures, at three scales."""
    total = a.new_zeros(())
    for _ in range(3):
        total = total + F.l1_loss(a.diff(dim=-1), b.diff(dim=-1)) + F.l1_loss(a.diff(dim=-2), b.diff(dim=-2))
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return total


def _likeness(found: torch.Tensor, pictures: torch.Tensor) -> torch.Tensor:
    exact = F.l1_loss(found, pictures) + 6 * F.mse_loss(found, pictures)
    return exact + 0.5 * _edges(found, pictures)


def _whole_loss(vae: AutoencoderKL, pictures: torch.Tensor, step: int) -> torch.Tensor:
    """Encode, decode, compare; every fourth step also asks for scale equivariance."""
    return _there_and_back(vae, vae.encode(pictures).latent_dist, pictures, step)


def _there_and_back(
    vae: AutoencoderKL, posterior: DiagonalGaussianDistribution, pictures: torch.Tensor, step: int
) -> torch.Tensor:
    latents = posterior.sample()
    loss = _likeness(vae.decode(latents).sample.float(), pictures)
    loss = loss + 1e-4 * posterior.kl().mean() / latents[0].numel()
    if step % 4 == 0:
        shrunk = vae.decode(F.avg_pool2d(latents, 2)).sample.float()
        loss = loss + 0.25 * F.l1_loss(shrunk, F.avg_pool2d(pictures, 2))
    return loss


def _decoder_loss(vae: AutoencoderKL, pictures: torch.Tensor, step: int) -> torch.Tensor:
    """Decode latents with a little noise: what the U-Net makes is not exact either."""
    with torch.no_grad():
        latents = vae.encode(pictures).latent_dist.sample().float()
        latents = latents + 0.05 * torch.randn_like(latents)
    return _likeness(vae.decode(latents).sample.float(), pictures)


def _tied_loss(before: AutoencoderKL) -> LossOf:
    """The loss of the whole autoencoder, and how far its latents are from those of `before`."""

    def loss(vae: AutoencoderKL, pictures: torch.Tensor, step: int) -> torch.Tensor:
        with torch.no_grad():
            was = before.encode(pictures).latent_dist.mean
        posterior = vae.encode(pictures).latent_dist
        moved = F.mse_loss(posterior.mean[:, : was.shape[1]].float(), was.float())
        return _there_and_back(vae, posterior, pictures, step) + _TIE * moved

    return loss


def train(recipe: Recipe, runtime: Runtime, minutes: float, steps: int | None = None) -> AutoencoderKL:
    """The whole autoencoder, then its latents brought to mean 0 and variance 1."""
    torch.manual_seed(runtime.seed)
    vae = build(recipe).to(runtime.device)
    done = runtime.load("vae-done")
    if done is not None:
        vae.load_state_dict(done)
        return vae.eval()
    pictures = _fit("vae", vae, vae, _whole_loss, recipe, runtime, TimeBudget(minutes, steps))
    _fold_statistics(vae, to_tensor(pictures[:500]).to(runtime.device))
    runtime.save("vae-done", vae.state_dict())
    return vae


def train_decoder(
    recipe: Recipe, runtime: Runtime, minutes: float, vae: AutoencoderKL, steps: int | None = None
) -> None:
    """The decoder alone, in place: the latents stay what the U-Net has learned."""
    decoder = torch.nn.ModuleList([vae.post_quant_conv, vae.decoder])
    told = vae.config.latent_channels
    _go_on("decoder", vae, decoder, _decoder_loss, told, recipe, runtime, TimeBudget(minutes, steps))


def finetune(
    recipe: Recipe,
    runtime: Runtime,
    minutes: float,
    vae: AutoencoderKL,
    before: AutoencoderKL,
    steps: int | None = None,
) -> None:
    """Encoder and decoder, in place: what the latents did not tell, they may learn to.

    Their first channels stay near those of `before`.
    """
    loss = _tied_loss(before.requires_grad_(False))
    told = before.config.latent_channels
    _go_on("vae-further", vae, vae, loss, told, recipe, runtime, TimeBudget(minutes, steps))


def _go_on(
    name: str,
    vae: AutoencoderKL,
    learning: torch.nn.Module,
    loss_of: LossOf,
    told: int,
    recipe: Recipe,
    runtime: Runtime,
    clock: TimeBudget,
) -> None:
    """A finished autoencoder goes on learning, in place, unless that is done; the first `told` channels of its
    latents are what a U-Net knows, and any others get mean 0 and variance 1."""
    torch.manual_seed(runtime.seed + 4)
    done = runtime.load(f"{name}-done")
    if done is None:
        pictures = _fit(name, vae, learning, loss_of, recipe, runtime, clock)
        _fold_statistics(vae, to_tensor(pictures[:500]).to(runtime.device), told)
        runtime.save(f"{name}-done", vae.state_dict())
    else:
        vae.load_state_dict(done)


def _fit(
    name: str,
    vae: AutoencoderKL,
    learning: torch.nn.Module,
    loss_of: LossOf,
    recipe: Recipe,
    runtime: Runtime,
    clock: TimeBudget,
) -> np.ndarray:
    """Train on random crops until the clock is done; continues where it was stopped."""
    parameters, optimizers = list(learning.parameters()), _optimizers(learning)
    state = runtime.load(name)
    if state is not None:
        vae.load_state_dict(state["vae"])
        for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        clock.resume(state["clock"])
    rendered = render(recipe.domain, recipe.vae_images, runtime.seed, recipe.side)
    pictures = np.concatenate([chunk.images for chunk in rendered])
    runtime.log(f"{name}: {len(pictures)} pictures, {sum(p.numel() for p in parameters) / 1e6:.1f} M parameters")
    saved = clock.seconds
    while clock.progress < 1:
        batch = _crops(pictures, recipe, np.random.default_rng((runtime.seed, clock.step))).to(runtime.device)
        rate = recipe.learning_rate * warm_then_decay(clock.progress, clock.step, flat=0.5)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        with runtime.autocast():
            loss = loss_of(vae, batch, clock.step)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        clock.step += 1
        if clock.step % 400 == 0:
            runtime.log(f"{name}: step {clock.step}, {clock.progress:.0%}, loss {loss.item():.4f}")
        if clock.seconds - saved > 120:
            saved = clock.seconds
            runtime.save(
                name,
                {
                    "vae": vae.state_dict(),
                    "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                    "clock": clock.state(),
                },
            )
    vae.eval()
    error = psnr(vae, to_tensor(pictures[:200]).to(runtime.device))
    runtime.log(f"{name}: {clock.step} steps in {clock.seconds / 60:.1f} minutes, PSNR {error:.2f} dB")
    return pictures


def _optimizers(learning: torch.nn.Module) -> list[torch.optim.Optimizer]:
    """Muon for the hidden convolutions, AdamW for all else."""
    named = list(learning.named_parameters())
    hidden = [p for n, p in named if p.ndim == 4 and not any(end in n for end in _ENDS)]
    kept = {id(p) for p in hidden}
    rest = [p for _, p in named if id(p) not in kept]
    return [Muon(hidden), torch.optim.AdamW(rest, betas=(0.9, 0.99), weight_decay=0.0)]


def _crops(pictures: np.ndarray, recipe: Recipe, rng: np.random.Generator) -> torch.Tensor:
    size, room = recipe.vae_crop, recipe.side - recipe.vae_crop + 1
    chosen = zip(
        rng.integers(len(pictures), size=recipe.vae_batch),
        rng.integers(room, size=(recipe.vae_batch, 2)),
        strict=True,
    )
    return to_tensor(np.stack([pictures[i, y : y + size, x : x + size] for i, (y, x) in chosen]))


@torch.no_grad()
def _fold_statistics(vae: AutoencoderKL, pictures: torch.Tensor, first: int = 0) -> None:
    """Give every latent channel from `first` on mean 0 and variance 1, exactly, inside `quant_conv` and
    `post_quant_conv`."""
    posteriors = [vae.encode(p).latent_dist for p in pictures.split(50)]
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
def psnr(vae: AutoencoderKL, pictures: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB of encoding and decoding `pictures` in [-1, 1]."""
    found = torch.cat([vae.decode(vae.encode(p).latent_dist.mode()).sample for p in pictures.split(50)])
    error = ((found.clamp(-1, 1) - pictures) / 2).pow(2).mean((1, 2, 3))
    return (-10 * error.log10()).mean().item()
