"""Four steps without guidance: a LoRA with which four steps of the U-Net reach what twelve guided steps reach.

This is progressive distillation (Salimans and Ho, 2022) in one stage, with guidance included (Meng et al., 2023). The
teacher goes from noise to an image with DPM++ and guidance. Its latents after each quarter of the steps are the
waypoints. The student learns, for each segment between two waypoints, the velocity with which a single DDIM step goes
from one to the next. Its change of the weights has low rank (LoRA, Hu et al., 2021), so the file is small.
"""

from copy import deepcopy
from dataclasses import dataclass
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
TEACHER_STEPS = 12  # more steps do not make more images correct
GUIDANCE = 3.0
RANK = 32
LEARNING_RATE = 1e-3
PATH_SHARE = 0.35  # of the time, for the teacher's paths
_END_LAYERS = ("conv_in", "conv_out", "time_embedding")


class LowRank(nn.Module):
    """A weight plus the product of two thin matrices, which starts as zero."""

    def __init__(self, weight: torch.Tensor):
        super().__init__()
        self.input_shape = weight.shape[1:]
        columns = self.input_shape.numel()
        self.down = nn.Parameter(torch.randn(RANK, columns) / columns**0.5)
        self.up = nn.Parameter(torch.zeros(len(weight), RANK))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight + (self.up @ self.down).view_as(weight)


def add_low_rank(unet: UNet2DConditionModel) -> dict[str, LowRank]:
    """Freeze a U-Net and add low-rank changes to its hidden matrices. Returns the changes by layer name."""
    unet.requires_grad_(False)
    changes = {}
    for name, module in list(unet.named_modules()):
        if isinstance(module, nn.Linear | nn.Conv2d) and not name.startswith(_END_LAYERS):
            changes[name] = LowRank(module.weight).to(module.weight.device)
            parametrize.register_parametrization(module, "weight", changes[name])
    return changes


def lora_state_dict(changes: dict[str, LowRank]) -> dict[str, torch.Tensor]:
    """Return the changes in fp16, with the names that PEFT and diffusers use for a LoRA of a U-Net."""
    matrices = {}
    for name, change in changes.items():
        kernel = (1,) * (len(change.input_shape) - 1)  # for a convolution, `up` is a 1×1 convolution
        matrices[f"unet.{name}.lora_A.weight"] = change.down.detach().view(RANK, *change.input_shape)
        matrices[f"unet.{name}.lora_B.weight"] = change.up.detach().view(*change.up.shape, *kernel)
    return {name: matrix.half().cpu().contiguous() for name, matrix in matrices.items()}


@dataclass
class TeacherPaths:
    """What the student learns from."""

    ids: torch.Tensor  # (N, 77) token ids
    waypoints: torch.Tensor  # (N, SEGMENTS + 1, C, h, w) fp16 latents, from noise to image


class Teacher:
    """A finished model, sampled with guidance."""

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
    def sample_paths(self, batch: int) -> TeacherPaths:
        """Sample images for captions of training scenes, and return their paths. `batch` is the batch number."""
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
        waypoints = [x]
        for i, t in enumerate(sampler.timesteps):
            with self.runtime.autocast():
                cond, uncond = self.unet(torch.cat([x, x]), t, states).sample.float().chunk(2)
            x = sampler.step(uncond + GUIDANCE * (cond - uncond), t, x).prev_sample
            if (i + 1) % (TEACHER_STEPS // SEGMENTS) == 0:
                waypoints.append(x)
        return TeacherPaths(ids.short(), torch.stack(waypoints, 1).half().cpu())

    def collect_paths(self, budget: TimeBudget) -> TeacherPaths:
        """Sample paths until the budget is spent, or load those of an earlier run."""
        saved = self.runtime.load("paths")
        if saved is not None:
            return TeacherPaths(saved["ids"], saved["stands"])
        batches = []
        while budget.progress < 1:
            batches.append(self.sample_paths(budget.step))
            budget.step += 1
        paths = TeacherPaths(torch.cat([b.ids for b in batches]), torch.cat([b.waypoints for b in batches]))
        self.runtime.save("paths", {"ids": paths.ids, "stands": paths.waypoints})
        self.runtime.log(f"fast: {len(paths.ids)} paths in {budget.seconds / 60:.1f} minutes")
        return paths


class Student:
    """The U-Net with its low-rank changes, their running mean, and the four segments."""

    def __init__(self, runtime: Runtime, unet: UNet2DConditionModel):
        torch.manual_seed(runtime.seed + 6)
        self.runtime, self.unet = runtime, deepcopy(unet).train()
        self.changes = add_low_rank(self.unet)
        self.parameters = [p for change in self.changes.values() for p in change.parameters()]
        self.mean = [p.detach().clone() for p in self.parameters]
        self.optimizer = torch.optim.AdamW(self.parameters, betas=(0.9, 0.99), weight_decay=0.0)
        sampler = make_scheduler()
        sampler.set_timesteps(SEGMENTS)
        self.timesteps = sampler.timesteps.to(runtime.device)
        alphas = torch.cat([sampler.alphas_cumprod[sampler.timesteps], torch.ones(1)])
        self.alphas = alphas.to(runtime.device)  # of every waypoint. The last one has no noise.

    def errors(
        self, start: torch.Tensor, end: torch.Tensor, segment: torch.Tensor, states: torch.Tensor
    ) -> torch.Tensor:
        """Return the squared error (B,) of the velocity from `start` to `end` (B, C, h, w) of each `segment` (B,).

        DDIM: x_u = α_u x₀ + σ_u ε with x₀ = α_t x − σ_t v and ε = σ_t x + α_t v, solved for v.
        """
        now, then = (self.alphas[k][:, None, None, None] for k in (segment, segment + 1))
        a, s, b, r = now.sqrt(), (1 - now).sqrt(), then.sqrt(), (1 - then).sqrt()
        velocity = ((b * a + r * s) * start - end) / (b * s - r * a)
        with self.runtime.autocast():
            predicted = self.unet(start, self.timesteps[segment], states).sample
        return (predicted.float() - velocity).square().mean((1, 2, 3))

    def step(self, teacher: Teacher, paths: TeacherPaths, budget: TimeBudget) -> torch.Tensor:
        """Take one training step. Returns the errors of the four segments, not-a-number for one that was not drawn."""
        for group in self.optimizer.param_groups:
            group["lr"] = LEARNING_RATE * warm_then_decay(budget.progress, budget.step, warmup=50)
        g = torch.Generator().manual_seed(hash((self.runtime.seed, budget.step)) % 2**62)
        chosen = torch.randint(len(paths.ids), (teacher.recipe.batch,), generator=g)
        segment = torch.randint(SEGMENTS, chosen.shape, generator=g)
        start, end = (paths.waypoints[chosen, k].float().to(self.runtime.device) for k in (segment, segment + 1))
        states = teacher.states(paths.ids[chosen])
        errors = self.errors(start, end, segment.to(self.runtime.device), states)
        errors.mean().backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        budget.step += 1
        keep = (1 - 1 / budget.step) ** 7.94  # as for the U-Net
        torch._foreach_lerp_(self.mean, [p.detach() for p in self.parameters], 1 - keep)
        errors = errors.detach().cpu()
        return torch.stack([errors[segment == k].mean() for k in range(SEGMENTS)])


def train(teacher: Teacher, minutes: float, steps: int | None = None) -> dict[str, torch.Tensor]:
    """Train the LoRA and return its weights, as `lora_state_dict` names them."""
    runtime = teacher.runtime
    paths = teacher.collect_paths(TimeBudget(minutes * PATH_SHARE, steps))
    student, budget = Student(runtime, teacher.unet), TimeBudget(minutes * (1 - PATH_SHARE), steps)
    errors: list[torch.Tensor] = []
    while budget.progress < 1:
        errors.append(student.step(teacher, paths, budget))
        if budget.step % 50 == 0 or budget.progress >= 1:
            means = " ".join(f"{e:.4f}" for e in torch.stack(errors[-50:]).nanmean(0))
            runtime.log(f"fast: step {budget.step}, {budget.progress:.0%}, error of each segment {means}")
    for p, mean in zip(student.parameters, student.mean, strict=True):
        p.data.copy_(mean)
    return lora_state_dict(student.changes)
