"""A CLIP image tower fitted to the finished text encoder: how well do a picture and a text agree?

The text encoder stays as it is (Zhai et al., 2022: locked-text tuning the other way round); the image
tower and both projections are trained with the contrastive loss of CLIP (Radford et al., 2021), with
hard negatives: for every caption another with its color, number, side or subject changed.
"""

from dataclasses import replace
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from transformers import (
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from .config import Recipe
from .dataset import to_tensor, tokenize
from .optimizers import warm_then_decay
from .runtime import Runtime, TimeBudget
from .world.captions import caption
from .world.pen import COLORS
from .world.scenes import Domain, Scene, draw, is_unseen, sample


def build(recipe: Recipe) -> CLIPVisionModelWithProjection:
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            image_size=recipe.side,
            patch_size=recipe.side // 8,
            hidden_size=192,
            intermediate_size=768,
            num_hidden_layers=4,
            num_attention_heads=3,
            projection_dim=recipe.text_width,
        )
    )


def alter_scene(scene: Scene, part: Domain, rng: Random) -> Scene:
    """A scene that differs in one thing a caption says."""
    first, *rest = scene.things
    choices = [replace(scene, things=(replace(first, subject=rng.choice(part.subjects)), *rest))]
    if first.color and first.subject != "galaxy":
        choices.append(replace(scene, things=(replace(first, color=rng.choice(list(COLORS))), *rest)))
    if first.count > 1:
        choices.append(replace(scene, things=(replace(first, count=5 - first.count if first.count != 4 else 2),)))
    if rest:
        second = rest[0]
        swapped = replace(first, color=second.color), replace(second, color=first.color)
        choices += [replace(scene, things=swapped), replace(scene, things=(second, first))]
    return rng.choice([c for c in choices if not is_unseen(c)] or [scene])


class ContrastiveModel(torch.nn.Module):
    """Both ends of CLIP: image tower and text projection, over a text encoder that is not trained."""

    def __init__(self, recipe: Recipe, text: CLIPTextModel):
        super().__init__()
        self.image = build(recipe)
        self.text_projection = torch.nn.Linear(recipe.text_width, recipe.text_width, bias=False)
        self.scale = torch.nn.Parameter(torch.tensor(2.66))
        self._text = [text]  # in a list: not a submodule, so not trained

    def text(self, ids: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            pooled = self._text[0](ids).pooler_output
        return F.normalize(self.text_projection(pooled).float(), dim=-1)

    def forward(self, pictures: torch.Tensor, right: torch.Tensor, wrong: torch.Tensor) -> torch.Tensor:
        seen = F.normalize(self.image(pictures).image_embeds.float(), dim=-1)
        said = torch.cat([self.text(right), self.text(wrong)])
        likeness = self.scale.exp().clamp(max=100) * seen @ said.T
        answer = torch.arange(len(seen), device=seen.device)
        return (F.cross_entropy(likeness, answer) + F.cross_entropy(likeness[:, : len(seen)].T, answer)) / 2


def _batch(recipe: Recipe, tokenizer: CLIPTokenizer, seed: str, size: int) -> tuple[torch.Tensor, ...]:
    rng, scenes = Random(seed), []
    while len(scenes) < size:
        scene = sample(recipe.domain, rng.randrange(2**40))
        if scene.things:
            scenes.append(scene)
    pictures = np.stack([np.asarray(draw(s, rng.randrange(2**40), recipe.side)) for s in scenes])
    right = [caption(s, rng) for s in scenes]
    wrong = [caption(alter_scene(s, recipe.domain, rng), rng) for s in scenes]
    return to_tensor(pictures), tokenize(tokenizer, right), tokenize(tokenizer, wrong)


def train(
    recipe: Recipe,
    runtime: Runtime,
    minutes: float,
    text: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    steps: int | None = None,
    start: tuple[CLIPVisionModelWithProjection, torch.Tensor] | None = None,
) -> tuple[CLIPVisionModelWithProjection, torch.Tensor]:
    """Fit the tower, or one that was fitted before; returns it and the text projection (P, D)."""
    torch.manual_seed(runtime.seed + 3)
    towers = ContrastiveModel(recipe, text)
    if start is not None:
        towers.image, towers.text_projection.weight.data = start
    towers.to(runtime.device)
    done = runtime.load("clip-done")
    if done is not None:
        towers.load_state_dict(done)
        return towers.image.eval(), towers.text_projection.weight.detach()
    optimizer = torch.optim.AdamW(towers.parameters(), 6e-4, weight_decay=0.05)
    clock = TimeBudget(minutes, steps)
    while clock.progress < 1:
        for group in optimizer.param_groups:
            group["lr"] = 6e-4 * warm_then_decay(clock.progress, clock.step, warmup=50)
        batch = [v.to(runtime.device) for v in _batch(recipe, tokenizer, f"clip {runtime.seed} {clock.step}", 64)]
        with runtime.autocast():
            loss = towers(*batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(towers.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        clock.step += 1
        if clock.step % 50 == 0:
            runtime.log(f"clip: step {clock.step}, {clock.progress:.0%}, loss {loss.item():.3f}")
    towers.eval()
    runtime.log(
        f"clip: {clock.step} steps, prefers the true caption for {_accuracy(towers, recipe, runtime, tokenizer):.1%}"
    )
    runtime.save("clip-done", towers.state_dict())
    return towers.image, towers.text_projection.weight.detach()


@torch.no_grad()
def _accuracy(towers: ContrastiveModel, recipe: Recipe, runtime: Runtime, tokenizer: CLIPTokenizer) -> float:
    pictures, right, wrong = (v.to(runtime.device) for v in _batch(recipe, tokenizer, "clip test", 256))
    seen = towers.image(pictures).image_embeds
    return ((seen * towers.text(right)).sum(-1) > (seen * towers.text(wrong)).sum(-1)).float().mean().item()
