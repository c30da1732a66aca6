"""Teach the text encoder to read before the U-Net listens: which thing, color, place, style does a caption say?

Stable Diffusion takes a text encoder that CLIP has taught. Ours is taught by questions: from the state of
the end of the text, and from those of the paddings after it, linear heads must tell every factor of the
scene. A U-Net attends to all 77 states, most of them paddings; what they do not carry it learns last, or never:
pairs were drawn as two of a kind for as long as the text did not say which of its things is where.
"""

import copy
from dataclasses import replace
from random import Random

import torch
import torch.nn.functional as F
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from .config import Recipe
from .dataset import tokenize
from .optimizers import Muon, warm_then_decay
from .runtime import Runtime, TimeBudget
from .tokenizer import LENGTH
from .world.backgrounds import BACKGROUNDS
from .world.captions import caption
from .world.pen import COLORS
from .world.scenes import RELATIONS, SIZES, Domain, Scene, Thing, sample
from .world.styles import STYLES
from .world.subjects import SUBJECTS

MIN_PAIR_SHARE = 0.4  # of the lessons at least: who is on the left of whom is learned last
CONSISTENCY_WEIGHT = 10.0  # how much it counts that a text encoder which reads on says the same as before
_NOTHING = Thing("", None)
_ANSWERS: dict[str, list] = {
    "subject": ["", *SUBJECTS, "galaxy"],
    "color": [None, *COLORS],
    "size": list(SIZES),
    "count": [1, 2, 3, 4],
    "place": list(BACKGROUNDS),
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


def add_layers(text: CLIPTextModel, layers: int) -> CLIPTextModel:
    """The same text encoder with more layers, which change nothing until they have learned."""
    config = copy.deepcopy(text.config)
    config.num_hidden_layers = layers
    deeper = CLIPTextModel(config).to(text.device)
    new = deeper.load_state_dict(text.state_dict(), strict=False).missing_keys
    for name, p in deeper.named_parameters():
        if name in new and any(end in name for end in ("out_proj", "fc2")):
            torch.nn.init.zeros_(p)
    return deeper


def probe_labels(scene: Scene) -> list[tuple[str, int]]:
    """(kind of question, right answer) for a scene: four about each of two things, three about all."""
    first, second = (*scene.things, _NOTHING, _NOTHING)[:2]
    asked = [(k, getattr(t, k)) for t in (first, second) for k in ("subject", "color", "size", "count")]
    asked += [("place", scene.background), ("style", scene.style), ("relation", scene.relation)]
    return [(kind, _ANSWERS[kind].index(answer)) for kind, answer in asked]


_KINDS = [kind for kind, _ in probe_labels(Scene(()))]


def _batch(part: Domain, tokenizer: CLIPTokenizer, seed: str, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids (B, 77) and right answers (B, questions)."""
    rng = Random(seed)
    scenes = [sample(part, rng.randrange(2**40)) for _ in range(size)]
    ids = tokenize(tokenizer, [caption(scene, rng) for scene in scenes])
    return ids, torch.tensor([[answer for _, answer in probe_labels(scene)] for scene in scenes])


class TextEncoderTrainer:
    """A text encoder at its lessons, with heads that are thrown away afterwards. `known` is what it was
    before, if it had read already: of everything but pairs it shall go on saying the same."""

    def __init__(self, recipe: Recipe, runtime: Runtime, tokenizer: CLIPTokenizer, text: CLIPTextModel | None):
        self.runtime, self.tokenizer = runtime, tokenizer
        self.domain = replace(recipe.domain, pairs=max(recipe.domain.pairs, MIN_PAIR_SHARE))
        self.reference = copy.deepcopy(text).requires_grad_(False) if text else None
        self.text = (text or build(recipe, tokenizer)).to(runtime.device)
        self.heads = torch.nn.ModuleList(torch.nn.Linear(recipe.text_width, len(_ANSWERS[kind])) for kind in _KINDS).to(
            runtime.device
        )
        self.accuracy = self.pair_accuracy = self.drift = 0.0

    def loss(self, step: int) -> torch.Tensor:
        """Of lesson number `step`: every question, asked of the end and of one padding after it."""
        ids, answers = self._lesson(step)
        with self.runtime.autocast():
            states = self.text(ids).last_hidden_state.float()
        end = (ids == self.tokenizer.eos_token_id).int().argmax(1)
        row = torch.arange(len(ids), device=ids.device)
        after = end + (torch.rand(len(ids), device=ids.device) * (ids.shape[1] - end)).long()
        loss = torch.zeros((), device=ids.device)
        right = []
        for where in (end, after):
            for column, head in enumerate(self.heads):
                said = head(states[row, where])
                loss = loss + F.cross_entropy(said, answers[:, column])
                right.append((said.argmax(1) == answers[:, column]).float())
        share, pair = torch.stack(right).mean(0), answers[:, -1] > 0
        self.accuracy += 0.02 * (share.mean().item() - self.accuracy)
        if pair.any():
            self.pair_accuracy += 0.02 * (share[pair].mean().item() - self.pair_accuracy)
        return loss if pair.all() else loss + CONSISTENCY_WEIGHT * self._change(ids[~pair], states[~pair])

    def _lesson(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids (B, length) and answers. Most lessons have few paddings, since nothing before them can
        notice and they take time."""
        seed = f"read {self.runtime.seed} {step}"
        ids, answers = _batch(self.domain, self.tokenizer, seed, 64)
        said = int((ids == self.tokenizer.eos_token_id).int().argmax(1).max()) + 1
        length = said + int((LENGTH - said) * Random(seed).random() ** 3)
        return ids[:, :length].to(self.runtime.device), answers.to(self.runtime.device)

    def _change(self, ids: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        """Mean square of what has changed since it read before, if it had."""
        if self.reference is None:
            return states.new_zeros(())
        with torch.no_grad(), self.runtime.autocast():
            before = self.reference(ids).last_hidden_state.float()
        change = F.mse_loss(states, before)
        self.drift += 0.02 * (change.item() - self.drift)
        return change

    def describe_progress(self) -> str:
        return (
            f"{self.accuracy:.1%} of the questions right, about pairs {self.pair_accuracy:.1%}; moved {self.drift:.4f}"
        )


def train(
    recipe: Recipe,
    runtime: Runtime,
    minutes: float,
    tokenizer: CLIPTokenizer,
    steps: int | None = None,
    text: CLIPTextModel | None = None,
) -> CLIPTextModel:
    """Teach a text encoder to read; or `text`, which can, to read on."""
    torch.manual_seed(runtime.seed + 5)
    if text is not None and text.config.num_hidden_layers < recipe.text_layers:
        text = add_layers(text, recipe.text_layers)
    reader = TextEncoderTrainer(recipe, runtime, tokenizer, text)
    done = runtime.load("reader-done")
    if done is not None:
        reader.text.load_state_dict(done)
        return reader.text
    hidden = [p for n, p in reader.text.named_parameters() if p.ndim > 1 and "embedding" not in n]
    rest = [p for n, p in reader.text.named_parameters() if p.ndim < 2 or "embedding" in n]
    rest += reader.heads.parameters()
    optimizers = Muon(hidden), torch.optim.AdamW(rest, weight_decay=0.0)
    clock = TimeBudget(minutes, steps)
    while clock.progress < 1:
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = 2e-3 * warm_then_decay(clock.progress, clock.step, warmup=30)
        reader.loss(clock.step).backward()
        torch.nn.utils.clip_grad_norm_([*hidden, *rest], 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        clock.step += 1
        if clock.step % 50 == 0:
            runtime.log(f"reader: step {clock.step}, {clock.progress:.0%}, {reader.describe_progress()}")
    runtime.log(f"reader: {clock.step} steps, {reader.describe_progress()}")
    runtime.save("reader-done", reader.text.state_dict())
    return reader.text
