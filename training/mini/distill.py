"""Four steps without guidance: a LoRA that takes the U-Net in four steps as far as guidance takes it in twelve.

The teacher's own paths are learned (progressive distillation, Salimans and Ho, 2022, in one go; guidance folded in,
Meng et al., 2023): DPM++ leads it from noise to picture, and where it stood after every quarter of the way is kept.
From each stand the student is asked for the velocity with which a single DDIM step arrives at the next one. What it
changes is low-rank (LoRA, Hu et al., 2021), and so a small file beside the weights.
"""

from copy import deepcopy
from random import Random

import torch
from diffusers import DPMSolverMultistepScheduler, UNet2DConditionModel
from torch import nn
from torch.nn.utils import parametrize
from transformers import CLIPTextModel, CLIPTokenizer

from .config import Recipe
from .dataset import tokenize
from .optimizers import warm_then_decay
from .runtime import Runtime, TimeBudget
from .unet import latent_shape, make_scheduler
from .world.captions import caption
from .world.scenes import sample

SEGMENTS = 4
TEACHER_STEPS = 12  # of the teacher: more do not make its pictures right more often
GUIDANCE = 3.0
RANK = 32
RATE = 1e-3
PATH_SHARE = 0.35  # the share of the time for the teacher's paths
_ENDS = ("conv_in", "conv_out", "time_embedding")


class LowRank(nn.Module):
    """A weight plus the product of two thin matrices, which is zero at first."""

    def __init__(self, weight: torch.Tensor):
        super().__init__()
        self.inside = weight.shape[1:]
        columns = self.inside.numel()
        self.down = nn.Parameter(torch.randn(RANK, columns) / columns**0.5)
        self.up = nn.Parameter(torch.zeros(len(weight), RANK))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight + (self.up @ self.down).view_as(weight)


def add_low_rank(unet: UNet2DConditionModel) -> dict[str, LowRank]:
    """Freeze a U-Net but for low-rank changes of its hidden matrices; returns those, by their layers' names."""
    unet.requires_grad_(False)
    changes = {}
    for name, module in list(unet.named_modules()):
        if isinstance(module, nn.Linear | nn.Conv2d) and not name.startswith(_ENDS):
            changes[name] = LowRank(module.weight).to(module.weight.device)
            parametrize.register_parametrization(module, "weight", changes[name])
    return changes


def lora_state_dict(changes: dict[str, LowRank]) -> dict[str, torch.Tensor]:
    """The changes in fp16, under the names by which PEFT and diffusers know a LoRA of a U-Net."""
    found = {}
    for name, change in changes.items():
        flat = (1,) * (len(change.inside) - 1)  # of a convolution, `up` is one of 1×1
        found[f"unet.{name}.lora_A.weight"] = change.down.detach().view(RANK, *change.inside)
        found[f"unet.{name}.lora_B.weight"] = change.up.detach().view(*change.up.shape, *flat)
    return {name: matrix.half().cpu().contiguous() for name, matrix in found.items()}


class Teacher:
    """A finished model, led by guidance."""

    def __init__(
        self,
        recipe: Recipe,
        runtime: Runtime,
        text: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        unet: UNet2DConditionModel,
    ):
        self.recipe, self.runtime, self.tokenizer = recipe, runtime, tokenizer
        self.text, self.unet = text.eval(), unet.eval()

    @torch.no_grad()
    def states(self, ids: torch.Tensor) -> torch.Tensor:
        with self.runtime.autocast():
            return self.text(ids.to(self.runtime.device).long()).last_hidden_state

    @torch.no_grad()
    def sample_paths(self, batch: int) -> dict[str, torch.Tensor]:
        """Captions of training's scenes, `ids` (N, 77), and the teacher's latents on its way from noise to
        their pictures, `stands` (N, JUMPS + 1, C, h, w), for batch number `batch`."""
        recipe, device, first = self.recipe, self.runtime.device, (batch + 1) * 10**6
        rng = Random(f"path {self.runtime.seed}/{batch}")
        scenes = [sample(recipe.domain, first + i, self.runtime.seed) for i in range(recipe.batch)]
        ids = tokenize(self.tokenizer, [caption(scene, rng) for scene in scenes])
        empty = tokenize(self.tokenizer, [""] * len(ids))
        states = self.states(torch.cat([ids, empty]))
        sampler = DPMSolverMultistepScheduler.from_config(make_scheduler().config)
        sampler.set_timesteps(TEACHER_STEPS)
        g = torch.Generator().manual_seed(first)
        x = torch.randn((len(ids), *latent_shape(self.unet)), generator=g).to(device)
        stands = [x]
        for i, t in enumerate(sampler.timesteps):
            with self.runtime.autocast():
                told, free = self.unet(torch.cat([x, x]), t, states).sample.float().chunk(2)
            x = sampler.step(free + GUIDANCE * (told - free), t, x).prev_sample
            if (i + 1) % (TEACHER_STEPS // SEGMENTS) == 0:
                stands.append(x)
        return {"ids": ids.short(), "stands": torch.stack(stands, 1).half().cpu()}

    def collect_paths(self, clock: TimeBudget) -> dict[str, torch.Tensor]:
        """Paths until the clock is done."""
        kept = self.runtime.load("paths")
        if kept is not None:
            return kept
        found = []
        while clock.progress < 1:
            found.append(self.sample_paths(clock.step))
            clock.step += 1
        paths = {name: torch.cat([part[name] for part in found]) for name in ("ids", "stands")}
        self.runtime.save("paths", paths)
        self.runtime.log(f"fast: {len(paths['ids'])} paths in {clock.seconds / 60:.1f} minutes")
        return paths


class Student:
    """The U-Net with its low-rank changes, their running mean, and the four jumps."""

    def __init__(self, runtime: Runtime, unet: UNet2DConditionModel):
        torch.manual_seed(runtime.seed + 6)
        self.runtime, self.unet = runtime, deepcopy(unet).train()
        self.changes = add_low_rank(self.unet)
        self.learning = [p for change in self.changes.values() for p in change.parameters()]
        self.mean = [p.detach().clone() for p in self.learning]
        self.optimizer = torch.optim.AdamW(self.learning, betas=(0.9, 0.99), weight_decay=0.0)
        sampler = make_scheduler()
        sampler.set_timesteps(SEGMENTS)
        self.timesteps = sampler.timesteps.to(runtime.device)
        alphas = torch.cat([sampler.alphas_cumprod[sampler.timesteps], torch.ones(1)])
        self.alphas = alphas.to(runtime.device)  # of every stand; the last has no noise

    def errors(
        self, stand: torch.Tensor, following: torch.Tensor, jump: torch.Tensor, states: torch.Tensor
    ) -> torch.Tensor:
        """Squared error of the velocity at each `stand` (B, C, h, w) before `jump` (B,): (B,).

        DDIM: x_u = α_u x₀ + σ_u ε with x₀ = α_t x − σ_t v and ε = σ_t x + α_t v, solved for v.
        """
        now, then = (self.alphas[k][:, None, None, None] for k in (jump, jump + 1))
        a, s, b, r = now.sqrt(), (1 - now).sqrt(), then.sqrt(), (1 - then).sqrt()
        velocity = ((b * a + r * s) * stand - following) / (b * s - r * a)
        with self.runtime.autocast():
            found = self.unet(stand, self.timesteps[jump], states).sample
        return (found.float() - velocity).square().mean((1, 2, 3))

    def step(self, teacher: Teacher, paths: dict[str, torch.Tensor], clock: TimeBudget) -> torch.Tensor:
        """One step of training; returns the errors of the four jumps, not-a-number where none was drawn."""
        for group in self.optimizer.param_groups:
            group["lr"] = RATE * warm_then_decay(clock.progress, clock.step, warmup=50)
        g = torch.Generator().manual_seed(hash((self.runtime.seed, clock.step)) % 2**62)
        rows = torch.randint(len(paths["ids"]), (teacher.recipe.batch,), generator=g)
        jump = torch.randint(SEGMENTS, rows.shape, generator=g)
        stand, following = (paths["stands"][rows, k].float().to(self.runtime.device) for k in (jump, jump + 1))
        states = teacher.states(paths["ids"][rows])
        errors = self.errors(stand, following, jump.to(self.runtime.device), states)
        errors.mean().backward()
        nn.utils.clip_grad_norm_(self.learning, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        clock.step += 1
        keep = (1 - 1 / clock.step) ** 7.94  # as of the U-Net
        torch._foreach_lerp_(self.mean, [p.detach() for p in self.learning], 1 - keep)
        seen = errors.detach().cpu()
        return torch.stack([seen[jump == k].mean() for k in range(SEGMENTS)])


def train(teacher: Teacher, minutes: float, steps: int | None = None) -> dict[str, torch.Tensor]:
    """The LoRA, as `lora` names it."""
    runtime = teacher.runtime
    paths = teacher.collect_paths(TimeBudget(minutes * PATH_SHARE, steps))
    student, clock = Student(runtime, teacher.unet), TimeBudget(minutes * (1 - PATH_SHARE), steps)
    seen: list[torch.Tensor] = []
    while clock.progress < 1:
        seen.append(student.step(teacher, paths, clock))
        if clock.step % 50 == 0 or clock.progress >= 1:
            errors = " ".join(f"{e:.4f}" for e in torch.stack(seen[-50:]).nanmean(0))
            runtime.log(f"fast: step {clock.step}, {clock.progress:.0%}, error of each jump {errors}")
    for p, mean in zip(student.learning, student.mean, strict=True):
        p.data.copy_(mean)
    return lora_state_dict(student.changes)
