"""Train a CLIP image encoder against the finished text encoder, to score how well an image and a text agree.

The text encoder is frozen (the reverse of locked-image tuning, Zhai et al., 2022). The image encoder and the text
projection are trained with the contrastive loss of CLIP (Radford et al., 2021) and with hard negatives: for every
caption another one with a color, a number, a side or a subject changed.
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
from .optimizers import set_learning_rate, update_weights, warm_then_decay
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


def alter_scene(scene: Scene, domain: Domain, rng: Random) -> Scene:
    """Return a scene that differs in one thing that a caption says."""
    first, *rest = scene.things
    choices = [replace(scene, things=(replace(first, subject=rng.choice(domain.subjects)), *rest))]
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
    """Image encoder and text projection of CLIP, with a frozen text encoder."""

    def __init__(self, recipe: Recipe, text: CLIPTextModel):
        super().__init__()
        self.image = build(recipe)
        self.text_projection = torch.nn.Linear(recipe.text_width, recipe.text_width, bias=False)
        self.scale = torch.nn.Parameter(torch.tensor(2.66))
        self._text = [text]  # in a list it is not a submodule, so it is not trained

    def text(self, ids: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            pooled = self._text[0](ids).pooler_output
        return F.normalize(self.text_projection(pooled).float(), dim=-1)

    def forward(self, images: torch.Tensor, correct: torch.Tensor, altered: torch.Tensor) -> torch.Tensor:
        image = F.normalize(self.image(images).image_embeds.float(), dim=-1)
        text = torch.cat([self.text(correct), self.text(altered)])
        logits = self.scale.exp().clamp(max=100) * image @ text.T
        target = torch.arange(len(image), device=image.device)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits[:, : len(image)].T, target)) / 2


def _batch(recipe: Recipe, tokenizer: CLIPTokenizer, seed: str, size: int) -> tuple[torch.Tensor, ...]:
    """Return images, correct captions and altered captions."""
    rng, scenes = Random(seed), []
    while len(scenes) < size:
        scene = sample(recipe.domain, rng.randrange(2**40))
        if scene.things:
            scenes.append(scene)
    images = np.stack([np.asarray(draw(s, rng.randrange(2**40), recipe.side)) for s in scenes])
    correct = [caption(s, rng) for s in scenes]
    altered = [caption(alter_scene(s, recipe.domain, rng), rng) for s in scenes]
    return to_tensor(images), tokenize(tokenizer, correct), tokenize(tokenizer, altered)


def train(
    recipe: Recipe,
    runtime: Runtime,
    minutes: float,
    text: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    steps: int | None = None,
    start: tuple[CLIPVisionModelWithProjection, torch.Tensor] | None = None,
) -> tuple[CLIPVisionModelWithProjection, torch.Tensor]:
    """Train an image encoder, or `start` further. Returns it and the text projection (P, D)."""
    torch.manual_seed(runtime.seed + 3)
    model = ContrastiveModel(recipe, text)
    if start is not None:
        model.image, model.text_projection.weight.data = start
    model.to(runtime.device)
    finished = runtime.load("clip-done")
    if finished is not None:
        model.load_state_dict(finished)
    else:
        _fit(model, recipe, runtime, tokenizer, TimeBudget(minutes, steps))
        runtime.save("clip-done", model.state_dict())
    return model.image.eval(), model.text_projection.weight.detach()


def _fit(
    model: ContrastiveModel, recipe: Recipe, runtime: Runtime, tokenizer: CLIPTokenizer, budget: TimeBudget
) -> None:
    optimizers = [torch.optim.AdamW(model.parameters(), 6e-4, weight_decay=0.05)]
    while budget.progress < 1:
        set_learning_rate(optimizers, 6e-4 * warm_then_decay(budget.progress, budget.step, warmup=50))
        batch = [v.to(runtime.device) for v in _batch(recipe, tokenizer, f"clip {runtime.seed} {budget.step}", 64)]
        with runtime.autocast():
            loss = model(*batch)
        loss.backward()
        update_weights(optimizers, model.parameters())
        budget.step += 1
        if budget.step % 50 == 0:
            runtime.log(f"image encoder: step {budget.step}, {budget.progress:.0%}, loss {loss.item():.3f}")
    model.eval()
    accuracy = _measure_accuracy(model, recipe, runtime, tokenizer)
    runtime.log(f"image encoder: {budget.step} steps, prefers the correct caption for {accuracy:.1%}")


@torch.no_grad()
def _measure_accuracy(model: ContrastiveModel, recipe: Recipe, runtime: Runtime, tokenizer: CLIPTokenizer) -> float:
    """Return the share of test images that are nearer to the correct caption than to the altered one."""
    images, correct, altered = (v.to(runtime.device) for v in _batch(recipe, tokenizer, "clip test", 256))
    features = model.image(images).image_embeds
    closer = (features * model.text(correct)).sum(-1) > (features * model.text(altered)).sum(-1)
    return closer.float().mean().item()
