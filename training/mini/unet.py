"""Train text encoder and U-Net together: predict the velocity of a noised latent from its caption.

v-prediction (Salimans and Ho, 2022) on a noise schedule that ends in nearly pure noise. Plain Stable Diffusion's
schedule leaks the mean color of a small latent (Lin et al., 2023). Half of the noise levels are drawn around log-SNR 0,
where details are decided (Hang et al., 2024), and half uniformly, because the caption matters most at high noise. The
loss has a higher weight where a thing is. The optimum stays the same, but shapes are learned sooner.
"""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextModel, CLIPTokenizer

from .config import Recipe
from .dataset import LatentDataset, tokenize
from .optimizers import Muon, set_learning_rate, update_weights, warm_then_decay
from .runtime import Runtime, TimeBudget
from .world.renderer import CAPTIONS_PER_IMAGE

PREVIEWS = (
    "a beautiful galaxy",
    "a red cat on the grass",
    "a blue house on the beach",
    "a yellow car on a street",
    "pixel art of a green dog in a forest",
    "two pink rabbits in the snow",
    "an app icon of a purple bird",
    "a red apple to the left of a blue cup in a room",
    "an oil painting of a boat by the sea",
    "an orange fish on a plain background",
    "a rocket in space",
    "a white castle in the mountains",
)


def make_scheduler() -> DDIMScheduler:
    """Return the noise schedule of `mini`, in training and in the exported model."""
    return DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.0001,
        beta_end=0.03,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=True,
    )


def build_unet(recipe: Recipe) -> UNet2DConditionModel:
    """Build a U-Net whose blocks all start as the identity, so that the first prediction is zero."""
    attention = recipe.unet_attention
    unet = UNet2DConditionModel(
        sample_size=recipe.side // 2 ** (len(recipe.vae_channels) - 1),
        in_channels=recipe.latent_channels,
        out_channels=recipe.latent_channels,
        block_out_channels=recipe.unet_channels,
        layers_per_block=1,
        down_block_types=tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attention),
        up_block_types=tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)),
        attention_head_dim=recipe.unet_heads,  # diffusers uses this name for the number of heads
        cross_attention_dim=recipe.text_width,
        use_linear_projection=True,
    )
    torch.nn.init.zeros_(unet.conv_out.weight)
    torch.nn.init.zeros_(unet.conv_out.bias)
    for name, module in unet.named_modules():
        if name.endswith((".conv2", ".proj_out")):
            torch.nn.init.zeros_(module.weight)
    return unet


def timestep_weights(
    alphas: torch.Tensor, center: float = 0.0, scale: float = 1.8, uniform: float = 0.5
) -> torch.Tensor:
    """Return the probability of each timestep: Laplace in log-SNR around `center`, and a share of `uniform`.

    The width of a timestep in log-SNR converts the density in log-SNR to one over timesteps.
    """
    snr = (alphas / (1 - alphas)).log()
    width = -torch.gradient(snr)[0]
    laplace = torch.exp(-(snr - center).abs() / scale) * width
    return (1 - uniform) * laplace / laplace.sum() + uniform / len(alphas)


class UNetTrainer:
    """The two networks, the running mean of their weights, and what a training step needs."""

    def __init__(
        self,
        recipe: Recipe,
        runtime: Runtime,
        text: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        unet: UNet2DConditionModel | None = None,
    ):
        torch.manual_seed(runtime.seed + 2)
        self.recipe, self.runtime, self.tokenizer = recipe, runtime, tokenizer
        self.from_scratch = unet is None
        self.nets = torch.nn.ModuleDict({"text": text, "unet": unet or build_unet(recipe)})
        # Channels last is faster on CUDA and slower on a processor.
        on_cuda = runtime.device.type == "cuda"
        self.layout = torch.channels_last if on_cuda else torch.contiguous_format
        self.nets.to(runtime.device, memory_format=self.layout).train()
        self.mean = [p.detach().clone() for p in self.nets.parameters()]
        self.optimizers = self._make_optimizers()
        self.scheduler = make_scheduler()
        self.alphas = self.scheduler.alphas_cumprod.to(runtime.device)
        self.weights = timestep_weights(self.alphas)
        self.trains_text = True
        self.empty = tokenize(tokenizer, [""]).to(runtime.device)

    def _make_optimizers(self) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
        """Muon for the hidden matrices of the U-Net. AdamW for its end layers and for the text encoder.

        Only matrices have weight decay. The text encoder has half the learning rate.
        """
        ends = ("conv_in.", "conv_out.", "time_embedding.")
        named = list(self.nets["unet"].named_parameters())
        hidden = [p for n, p in named if p.ndim > 1 and not n.startswith(ends)]
        groups = []
        for net, factor in (("text", 0.5), ("unet", 1.0)):
            rest = [
                (n, p)
                for n, p in self.nets[net].named_parameters()
                if net == "text" or p.ndim < 2 or n.startswith(ends)
            ]
            decay = [p for n, p in rest if p.ndim > 1 and "embedding" not in n]
            others = [p for n, p in rest if p.ndim < 2 or "embedding" in n]
            groups += [{"params": decay, "weight_decay": 0.01, "factor": factor}]
            groups += [{"params": others, "weight_decay": 0.0, "factor": factor}]
        muon = Muon([{"params": hidden, "factor": 1.0}])
        return muon, torch.optim.AdamW(groups, betas=(0.9, 0.99), fused=True)

    def loss(
        self,
        latents: torch.Tensor,
        ids: torch.Tensor,
        t: torch.Tensor,
        eps: torch.Tensor,
        weight: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the squared error of the predicted velocity of each sample (B,).

        With a `weight` (B, h, w), as in training, each channel is also weighted by the inverse of its error. Without
        that, the channels that are hardest to predict, with the finest detail, dominate (Kendall et al., 2018).
        """
        a = self.alphas[t].sqrt()[:, None, None, None]
        s = (1 - self.alphas[t]).sqrt()[:, None, None, None]
        with self.runtime.autocast():
            with torch.set_grad_enabled(self.trains_text and torch.is_grad_enabled()):
                states = self.nets["text"](ids).last_hidden_state
            noisy = (a * latents + s * eps).contiguous(memory_format=self.layout)
            predicted = self.nets["unet"](noisy, t, states).sample
        error = F.mse_loss(predicted.float(), a * eps - s * latents, reduction="none")
        if weight is not None:
            share = 1 / error.detach().mean((0, 2, 3), keepdim=True)
            error = error * weight[:, None] * share / share.mean()
        return error.mean((1, 2, 3))

    def batch(self, data: LatentDataset, step: int) -> tuple[torch.Tensor, ...]:
        """Return latents, token ids, timesteps, noise and weights of one step. They depend only on the seed."""
        g = torch.Generator(self.runtime.device).manual_seed(hash((self.runtime.seed, step)) % 2**62)
        size, device = self.recipe.batch, self.runtime.device
        rows = torch.randint(len(data.mean), (size,), generator=g, device=device)
        which = torch.randint(CAPTIONS_PER_IMAGE, (size,), generator=g, device=device)
        dropped = torch.rand(size, generator=g, device=device) < self.recipe.caption_dropout
        mean, std = data.mean[rows].float(), data.std[rows].float()
        latents = mean + std * torch.randn(mean.shape, generator=g, device=device)
        ids = torch.where(dropped[:, None], self.empty, data.ids[rows, which].long())
        t = torch.multinomial(self.weights, size, replacement=True, generator=g)
        weight = 1 + self.recipe.foreground_weight * data.things[rows].float()
        eps = torch.randn(mean.shape, generator=g, device=device)
        return latents, ids, t, eps, weight / weight.mean()

    def step(self, data: LatentDataset, budget: TimeBudget) -> float:
        self.trains_text = budget.progress < self.recipe.text_training_share
        rate = self.recipe.learning_rate * warm_then_decay(budget.progress, budget.step)
        set_learning_rate(self.optimizers, rate)
        loss = self.loss(*self.batch(data, budget.step)).mean()
        loss.backward()
        update_weights(self.optimizers, self.nets.parameters())
        budget.step += 1
        # The mean covers the last tenth of the run, for any length of it (Karras et al., 2024: power EMA).
        keep = (1 - 1 / budget.step) ** 7.94
        torch._foreach_lerp_(self.mean, [p.detach() for p in self.nets.parameters()], 1 - keep)
        return loss.item()

    def state(self, budget: TimeBudget) -> dict:
        return {
            "nets": self.nets.state_dict(),
            "mean": self.mean,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "clock": budget.state(),
        }

    def resume(self, state: dict, budget: TimeBudget) -> None:
        self.nets.load_state_dict(state["nets"])
        self.mean = [m.detach() for m in state["mean"]]
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        budget.resume(state["clock"])

    def swap_weights(self) -> None:
        """Exchange the weights and their running mean. A second call exchanges them back."""
        for p, m in zip(self.nets.parameters(), self.mean, strict=True):
            p.data, m.data = m.data, p.data

    @torch.no_grad()
    def describe_losses(self, data: LatentDataset) -> str:
        """Say the loss at eight noise levels of always the same samples, and what a wrong caption adds to it."""
        g = torch.Generator(self.runtime.device).manual_seed(1)
        mean, ids = data.mean[:32].float().repeat(8, 1, 1, 1), data.ids[:32, 0].long().repeat(8, 1)
        eps = torch.randn(mean.shape, generator=g, device=mean.device)
        t = torch.linspace(60, 999, 8, device=mean.device).long().repeat_interleave(32)
        right = self.loss(mean, ids, t, eps).view(8, 32).mean(1)
        wrong = self.loss(mean, ids.roll(1, 0), t, eps).view(8, 32).mean(1)
        levels = " ".join(f"{v:.3f}" for v in right.tolist())
        return f"loss {levels} | wrong caption {' '.join(f'{v:+.3f}' for v in (wrong - right).tolist())}"

    @torch.no_grad()
    def preview(self, vae: AutoencoderKL, path: Path, guidance: float = 3.0, steps: int = 20) -> None:
        """Draw a contact sheet with the mean weights, always of the same prompts and noise."""
        self.swap_weights()
        self.nets.eval()
        ids = tokenize(self.tokenizer, [*PREVIEWS, *[""] * len(PREVIEWS)]).to(self.runtime.device)
        unet, sampler, n = self.nets["unet"], make_scheduler(), len(PREVIEWS)
        x = torch.randn((n, *latent_shape(unet)), generator=torch.Generator().manual_seed(3)).to(self.runtime.device)
        sampler.set_timesteps(steps)
        with self.runtime.autocast():
            states = self.nets["text"](ids).last_hidden_state
            for t in sampler.timesteps:
                cond, free = unet(torch.cat([x, x]), t, states).sample.float().chunk(2)
                x = sampler.step(free + guidance * (cond - free), t, x).prev_sample
            images = vae.decode(x).sample.float()
        pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        side, across = self.recipe.side, math.ceil(n / 2)
        sheet = Image.new("RGB", (side * across, side * 2))
        for i, image in enumerate(pixels):
            sheet.paste(Image.fromarray(image), (i % across * side, i // across * side))
        sheet.save(path)
        self.nets.train()
        self.swap_weights()


def latent_shape(unet: UNet2DConditionModel) -> tuple[int, int, int]:
    return unet.config.in_channels, unet.config.sample_size, unet.config.sample_size


def train(
    trainer: UNetTrainer, budget: TimeBudget, data: LatentDataset, vae: AutoencoderKL
) -> tuple[CLIPTextModel, UNet2DConditionModel]:
    """Train both networks, or continue an interrupted run. Returns their mean weights."""
    runtime, batch = trainer.runtime, trainer.recipe.batch
    state = runtime.load("unet")
    if state is not None:
        trainer.resume(state, budget)
    count = sum(p.numel() for p in trainer.nets.parameters())
    runtime.log(f"unet: {count / 1e6:.1f} M parameters, step {budget.step}")
    reported, step_before = (budget.seconds if budget.step else -math.inf), budget.step
    while budget.progress < 1:
        loss = trainer.step(data, budget)
        if budget.step == 1 and trainer.from_scratch:
            runtime.log(f"unet: the first loss is {loss:.3f}; it should be 1.00")
        if budget.seconds - reported > 180:
            speed = (budget.step - step_before) * batch / (budget.seconds - reported)
            reported, step_before = budget.seconds, budget.step
            runtime.log(
                f"unet: step {budget.step}, {budget.progress:.0%}, {speed:.0f}/s, {trainer.describe_losses(data)}"
            )
            trainer.preview(vae, runtime.work / f"preview-{budget.step:06}.png")
            runtime.save("unet", trainer.state(budget))
    trainer.preview(vae, runtime.work / "preview-last.png")
    runtime.save("unet", trainer.state(budget))
    minutes = budget.seconds / 60
    runtime.log(f"unet: {budget.step} steps of {batch} in {minutes:.1f} minutes, {trainer.describe_losses(data)}")
    trainer.swap_weights()
    return trainer.nets["text"].eval(), trainer.nets["unet"].eval()
