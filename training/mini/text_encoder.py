"""Train the text encoder to classify the scene of a caption, before the U-Net is trained.

Stable Diffusion takes a text encoder that CLIP has trained. Ours is trained by probing: linear heads must predict
every factor of the scene (subject, color, background, style …) from the state at the end of the text and from those of
the paddings after it. A U-Net attends to all 77 states, most of them paddings. What they do not contain it learns last
or never. As long as the states did not say which thing of a pair is where, pairs were drawn as two of a kind.
"""

import copy
from dataclasses import replace
from random import Random

import torch
import torch.nn.functional as F
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from .config import Recipe
from .dataset import tokenize
from .optimizers import Muon, set_learning_rate, update_weights, warm_then_decay
from .runtime import Runtime, TimeBudget
from .tokenizer import LENGTH
from .world.backgrounds import BACKGROUNDS
from .world.captions import caption
from .world.pen import COLORS
from .world.scenes import RELATIONS, SIZES, Domain, Scene, Thing, sample
from .world.styles import STYLES
from .world.subjects import SUBJECTS

MIN_PAIR_SHARE = 0.4  # of the training scenes. Which thing is on the left is learned last.
CONSISTENCY_WEIGHT = 10.0  # of the change of the states, when a trained text encoder is trained further
_NO_THING = Thing("", None)
_CLASSES: dict[str, list] = {
    "subject": ["", *SUBJECTS, "galaxy"],
    "color": [None, *COLORS],
    "size": list(SIZES),
    "count": [1, 2, 3, 4],
    "background": list(BACKGROUNDS),
    "style": list(STYLES),
    "relation": ["", *RELATIONS],
}


def build(recipe: Recipe, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Build a CLIP text encoder with a larger embedding initialization.

    CLIP uses 0.02. With that, what all positions have in common outweighs the words.
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
    """Return the same text encoder with more layers. They do not change its states until they are trained."""
    config = copy.deepcopy(text.config)
    config.num_hidden_layers = layers
    deeper = CLIPTextModel(config).to(text.device)
    new = deeper.load_state_dict(text.state_dict(), strict=False).missing_keys
    for name, p in deeper.named_parameters():
        if name in new and any(end in name for end in ("out_proj", "fc2")):
            torch.nn.init.zeros_(p)
    return deeper


def probe_labels(scene: Scene) -> list[tuple[str, int]]:
    """Return (factor, class index) of everything to predict: four factors of each of two things, three of the scene."""
    first, second = (*scene.things, _NO_THING, _NO_THING)[:2]
    factors = [(k, getattr(t, k)) for t in (first, second) for k in ("subject", "color", "size", "count")]
    factors += [(k, getattr(scene, k)) for k in ("background", "style", "relation")]
    return [(name, _CLASSES[name].index(value)) for name, value in factors]


_FACTORS = [name for name, _ in probe_labels(Scene(()))]


def _batch(domain: Domain, tokenizer: CLIPTokenizer, seed: str, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids (B, 77) and labels (B, factors)."""
    rng = Random(seed)
    scenes = [sample(domain, rng.randrange(2**40)) for _ in range(size)]
    ids = tokenize(tokenizer, [caption(scene, rng) for scene in scenes])
    return ids, torch.tensor([[label for _, label in probe_labels(scene)] for scene in scenes])


class TextEncoderTrainer:
    """A text encoder and the probe heads, which are not kept after training.

    `text` is a trained text encoder to train further, or None. Its states should stay the same except for pairs.
    """

    def __init__(self, recipe: Recipe, runtime: Runtime, tokenizer: CLIPTokenizer, text: CLIPTextModel | None):
        self.runtime, self.tokenizer = runtime, tokenizer
        self.domain = replace(recipe.domain, pairs=max(recipe.domain.pairs, MIN_PAIR_SHARE))
        self.reference = copy.deepcopy(text).requires_grad_(False) if text else None
        self.text = (text or build(recipe, tokenizer)).to(runtime.device)
        heads = (torch.nn.Linear(recipe.text_width, len(_CLASSES[name])) for name in _FACTORS)
        self.heads = torch.nn.ModuleList(heads).to(runtime.device)
        # running means
        self.accuracy = self.pair_accuracy = self.drift = 0.0

    def loss(self, step: int) -> torch.Tensor:
        """Return the loss of one batch: all heads, at the end of the text and at one padding after it."""
        ids, labels = self._make_batch(step)
        with self.runtime.autocast():
            states = self.text(ids).last_hidden_state.float()
        end = (ids == self.tokenizer.eos_token_id).int().argmax(1)
        row = torch.arange(len(ids), device=ids.device)
        after = end + (torch.rand(len(ids), device=ids.device) * (ids.shape[1] - end)).long()
        loss = torch.zeros((), device=ids.device)
        correct = []
        for position in (end, after):
            for column, head in enumerate(self.heads):
                logits = head(states[row, position])
                loss = loss + F.cross_entropy(logits, labels[:, column])
                correct.append((logits.argmax(1) == labels[:, column]).float())
        share, pair = torch.stack(correct).mean(0), labels[:, -1] > 0
        self.accuracy += 0.02 * (share.mean().item() - self.accuracy)
        if pair.any():
            self.pair_accuracy += 0.02 * (share[pair].mean().item() - self.pair_accuracy)
        return loss if pair.all() else loss + CONSISTENCY_WEIGHT * self._measure_drift(ids[~pair], states[~pair])

    def _make_batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return token ids (B, length) and labels.

        Most batches have few paddings, which saves time. With a causal mask, no state depends on what follows it.
        """
        seed = f"read {self.runtime.seed} {step}"
        ids, labels = _batch(self.domain, self.tokenizer, seed, 64)
        longest = int((ids == self.tokenizer.eos_token_id).int().argmax(1).max()) + 1
        length = longest + int((LENGTH - longest) * Random(seed).random() ** 3)
        return ids[:, :length].to(self.runtime.device), labels.to(self.runtime.device)

    def _measure_drift(self, ids: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        """Return the mean squared change of the states since before. Zero for a new text encoder."""
        if self.reference is None:
            return states.new_zeros(())
        with torch.no_grad(), self.runtime.autocast():
            before = self.reference(ids).last_hidden_state.float()
        change = F.mse_loss(states, before)
        self.drift += 0.02 * (change.item() - self.drift)
        return change

    def describe_progress(self) -> str:
        return f"accuracy {self.accuracy:.1%}, of pairs {self.pair_accuracy:.1%}, drift {self.drift:.4f}"


def train(
    recipe: Recipe,
    runtime: Runtime,
    minutes: float,
    tokenizer: CLIPTokenizer,
    steps: int | None = None,
    text: CLIPTextModel | None = None,
) -> CLIPTextModel:
    """Train a new text encoder, or train `text` further."""
    torch.manual_seed(runtime.seed + 5)
    if text is not None and text.config.num_hidden_layers < recipe.text_layers:
        text = add_layers(text, recipe.text_layers)
    trainer = TextEncoderTrainer(recipe, runtime, tokenizer, text)
    finished = runtime.load("reader-done")
    if finished is not None:
        trainer.text.load_state_dict(finished)
        return trainer.text
    hidden = [p for n, p in trainer.text.named_parameters() if p.ndim > 1 and "embedding" not in n]
    rest = [p for n, p in trainer.text.named_parameters() if p.ndim < 2 or "embedding" in n]
    rest += trainer.heads.parameters()
    optimizers = Muon(hidden), torch.optim.AdamW(rest, weight_decay=0.0)
    budget = TimeBudget(minutes, steps)
    while budget.progress < 1:
        set_learning_rate(optimizers, 2e-3 * warm_then_decay(budget.progress, budget.step, warmup=30))
        trainer.loss(budget.step).backward()
        update_weights(optimizers, [*hidden, *rest])
        budget.step += 1
        if budget.step % 50 == 0:
            runtime.log(f"text encoder: step {budget.step}, {budget.progress:.0%}, {trainer.describe_progress()}")
    runtime.log(f"text encoder: {budget.step} steps, {trainer.describe_progress()}")
    runtime.save("reader-done", trainer.text.state_dict())
    return trainer.text
