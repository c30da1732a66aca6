"""Teach the text encoder to read before the U-Net listens: which thing, color, place, style does a caption say?

Stable Diffusion takes a text encoder that CLIP has taught. Ours is taught by questions: from the state of
the end of the text, and from those of the paddings after it, linear heads must tell every factor of the
scene. A U-Net attends to all 77 states, most of them paddings; what they do not carry it learns last.
"""

from random import Random

import torch
import torch.nn.functional as F
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from .captions import caption
from .data import tokens
from .pen import COLORS
from .places import PLACES
from .recipe import Bench, Clock, Recipe, warm_then_decay
from .styles import STYLES
from .subjects import SUBJECTS
from .tokenizer import LENGTH
from .world import RELATIONS, SIZES, Part, Scene, Thing, sample

_NOTHING = Thing("", None)
_ANSWERS: dict[str, list] = {
    "subject": ["", *SUBJECTS, "galaxy"],
    "color": [None, *COLORS],
    "size": list(SIZES),
    "count": [1, 2, 3, 4],
    "place": list(PLACES),
    "style": list(STYLES),
    "relation": ["", *RELATIONS],
}


def build(recipe: Recipe, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A CLIP text encoder in which words are loud.

    CLIP starts its embeddings at 0.02; what all positions share then drowns the words.
    """
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=recipe.text_width,
            intermediate_size=4 * recipe.text_width,
            projection_dim=recipe.text_width,
            num_hidden_layers=recipe.text_layers,
            num_attention_heads=recipe.text_width // 64,
            max_position_embeddings=LENGTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    torch.nn.init.normal_(text.get_input_embeddings().weight, std=0.5)
    torch.nn.init.normal_(text.embeddings.position_embedding.weight, std=0.1)
    return text


def questions(scene: Scene) -> list[tuple[str, int]]:
    """(kind of question, right answer) for a scene: four about each of two things, three about all."""
    first, second = (*scene.things, _NOTHING, _NOTHING)[:2]
    asked = [
        (k, getattr(t, k)) for t in (first, second) for k in ("subject", "color", "size", "count")
    ]
    asked += [("place", scene.place), ("style", scene.style), ("relation", scene.relation)]
    return [(kind, _ANSWERS[kind].index(answer)) for kind, answer in asked]


_KINDS = [kind for kind, _ in questions(Scene(()))]


def _batch(
    part: Part, tokenizer: CLIPTokenizer, seed: str, size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids (B, 77) and right answers (B, questions)."""
    rng = Random(seed)
    scenes = [sample(part, rng.randrange(2**40)) for _ in range(size)]
    ids = tokens(tokenizer, [caption(scene, rng) for scene in scenes])
    return ids, torch.tensor([[answer for _, answer in questions(scene)] for scene in scenes])


def train(
    recipe: Recipe, bench: Bench, minutes: float, tokenizer: CLIPTokenizer, steps: int | None = None
) -> CLIPTextModel:
    """Train a text encoder, with heads that are thrown away afterwards."""
    torch.manual_seed(bench.seed + 5)
    text = build(recipe, tokenizer).to(bench.device)
    done = bench.load("reader-done")
    if done is not None:
        text.load_state_dict(done)
        return text
    heads = torch.nn.ModuleList(
        torch.nn.Linear(recipe.text_width, len(_ANSWERS[kind])) for kind in _KINDS
    ).to(bench.device)
    parameters = [*text.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.01)
    clock, share = Clock(minutes, steps), 0.0
    while clock.progress < 1:
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * warm_then_decay(clock.progress, clock.step, warmup=30)
        ids, answers = (
            v.to(bench.device)
            for v in _batch(recipe.part, tokenizer, f"read {bench.seed} {clock.step}", 64)
        )
        with bench.autocast():
            states = text(ids).last_hidden_state.float()
        end = (ids == tokenizer.eos_token_id).int().argmax(1)
        row = torch.arange(len(ids), device=ids.device)
        after = end + (torch.rand(len(ids), device=ids.device) * (ids.shape[1] - end)).long()
        loss, share = torch.zeros((), device=ids.device), 0.0
        for where in (end, after):
            for column, head in enumerate(heads):
                said = head(states[row, where])
                loss = loss + F.cross_entropy(said, answers[:, column])
                share += (said.argmax(1) == answers[:, column]).float().mean().item() / (
                    2 * len(heads)
                )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        clock.step += 1
        if clock.step % 50 == 0:
            bench.say(
                f"reader: step {clock.step}, {clock.progress:.0%}, {share:.1%} of the questions right"
            )
    bench.say(f"reader: {clock.step} steps, {share:.1%} of the questions right")
    bench.save("reader-done", text.state_dict())
    return text
