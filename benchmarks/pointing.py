"""The pointing game: is the place that a subject's word is looked at most inside the subject's box?

    python benchmarks/pointing.py

Scenes that `mini` was not trained with are drawn, so that the box is known; noised, and shown to the U-Net
with their caption. Then pictures are generated from the captions of the same scenes; there the box is where
the picture differs from the same seed's picture of the place alone. The same every time it is run.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image, ImageFilter

sys.path.insert(0, str(Path(__file__).parents[1]))

from diffusekit import attention, models, schedule, text
from diffusekit.models import Model
from diffusekit.visualise.attention_maps import peak_position, record_attention_maps, word_maps
from training.mini.world.backgrounds import BACKGROUNDS
from training.mini.world.captions import caption
from training.mini.world.scenes import FIRST_PART, Scene, draw_with_instances, sample
from training.mini.world.styles import STYLES

WORLD = 5
TIMESTEPS = (100, 300, 500, 700, 900)
SHIFT = 0.3
Box = tuple[float, float, float, float]  # left, top, right, bottom in fractions of the picture


@dataclass(frozen=True)
class Case:
    """A caption's words, their boxes by the subjects' places among the words, and the maps of each layer
    (timesteps, words, h, w)."""

    words: list[str]
    boxes: dict[int, Box]
    maps: dict[str, torch.Tensor]

    def reduced(self, layers: list[str], steps: slice = slice(None)) -> torch.Tensor:
        """The mean over layers and timesteps (words, h, w), at the size of the finest of the layers."""
        size = max(self.maps[name].shape[-2:] for name in layers)
        found = [
            torch.nn.functional.interpolate(self.maps[name][steps].float(), tuple(size), mode="bilinear")
            for name in layers
        ]
        return torch.stack(found).mean((0, 1))


def scenes(count: int, *, things: int) -> Iterator[tuple[int, Scene]]:
    """The first held-out combinations with `things` different subjects, one of each."""
    index = 0
    while count:
        scene = sample(FIRST_PART, index, WORLD, unseen=True)
        if len(scene.things) == things and all(t.count == 1 and t.subject != "galaxy" for t in scene.things):
            count -= 1
            yield index, scene
        index += 1


def drawn(model: Model, index: int, scene: Scene, *, shift: float = 0.0) -> Case:
    """A scene drawn, noised to all TIMESTEPS and seen by the U-Net with its caption.

    With `shift`, the picture is moved by that part of its side towards one of its corners, and its opposite
    edges are drawn out: mini's subjects stand in the middle, where a map may point by habit.
    """
    picture, spots = draw_with_instances(scene, index)
    dx, dy = (shift * Random(f"{index}{axis}").choice((-1, 1)) for axis in "xy")
    picture = moved(picture, round(dx * picture.width), round(dy * picture.height))
    pixels = torch.from_numpy(np.asarray(picture, np.float32).transpose(2, 0, 1) / 127.5 - 1)[None]
    said = caption(scene, Random(index))
    words = text.word_spans(model, text.tokenize(model, said))
    with torch.no_grad():
        x0 = model.vae.encode(pixels).latent_dist.mean * model.vae.config.scaling_factor
        eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(index))
        times = torch.tensor(TIMESTEPS)
        alpha_bar = schedule.make_scheduler("ddim", model.scheduler_config).alphas_cumprod[times].view(-1, 1, 1, 1)
        noised = alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * eps
        cond = text.encode(model, [said] * len(times))
        with attention.record(model.unet) as maps:
            model.unet(noised, times, **cond.unet_kwargs())
            layers = {name: word_maps(each, words) for name, each in maps.per_layer().items()}
    names = [w.text for w in words]
    boxes = {names.index(s.thing.subject): (s.box[0] + dx, s.box[1] + dy, s.box[2] + dx, s.box[3] + dy) for s in spots}
    return Case(names, boxes, layers)


def moved(picture: Image.Image, dx: int, dy: int) -> Image.Image:
    """A picture moved by so many pixels, its edges drawn out to fill what becomes empty."""
    pixels = np.asarray(picture)
    h, w = pixels.shape[:2]
    wide = np.pad(pixels, ((abs(dy), abs(dy)), (abs(dx), abs(dx)), (0, 0)), mode="edge")
    top, left = abs(dy) - dy, abs(dx) - dx
    return Image.fromarray(wide[top : top + h, left : left + w])


def generated(index: int, scene: Scene) -> Case | None:
    """A scene's caption made into a picture; the box is what the place alone, from the same noise, has not.

    None when the pictures differ hardly, or everywhere: then nobody knows where the subject is.
    """
    said = caption(scene, Random(index))
    place = BACKGROUNDS[scene.background][0] if STYLES[scene.style].has_background else ""
    without = STYLES[scene.style].phrases[0].format(f"nothing {place}".strip())
    settings = {"steps": 10, "seed": index, "device": "cpu"}
    trace, heat = record_attention_maps(said, **settings)
    other, _ = record_attention_maps(without, **settings)
    box = changed(trace.result.image, other.result.image)
    if box is None:
        return None
    words = list(heat.words[1:-1])
    return Case(words, {words.index(scene.things[0].subject): box}, {"": heat.maps})


def changed(a: Image.Image, b: Image.Image) -> Box | None:
    """The box of what differs by more than half of the largest difference, both blurred a little."""
    blurred = [np.asarray(p.filter(ImageFilter.GaussianBlur(3)), np.float32) for p in (a, b)]
    difference = np.abs(blurred[0] - blurred[1]).mean(-1)
    rows, columns = np.nonzero(difference > difference.max() / 2)
    box = (
        columns.min() / a.width,
        rows.min() / a.height,
        (columns.max() + 1) / a.width,
        (rows.max() + 1) / a.height,
    )
    return box if difference.max() > 25 and area(box) < 0.6 else None


def area(box: Box) -> float:
    inside = [min(max(edge, 0), 1) for edge in box]
    return (inside[2] - inside[0]) * (inside[3] - inside[1])


def hit(found: torch.Tensor, box: Box) -> bool:
    x, y = peak_position(found, (1, 1))
    return box[0] <= x <= box[2] and box[1] <= y <= box[3]


def row(label: str, cases: list[Case], layers: list[str], steps: slice = slice(None)) -> None:
    """Percent of peaks inside the subject's box: its own word, the mean of the caption's other words, the
    other subject's word, the middle of the picture, chance."""
    own, others, rival, middle, chance = [], [], [], [], []
    for case in cases:
        maps = case.reduced(layers, steps)[1:-1]
        for at, box in case.boxes.items():
            own.append(hit(maps[at], box))
            rest = [i for i in range(len(maps)) if i not in case.boxes]
            others.append(np.mean([hit(maps[i], box) for i in rest]) if rest else np.nan)
            rival += [hit(maps[i], box) for i in case.boxes if i != at]
            middle.append(box[0] <= 0.5 <= box[2] and box[1] <= 0.5 <= box[3])
            chance.append(area(box))
    columns = (own, others, rival, middle, chance)
    shown = [f"{100 * np.nanmean(c):.0f}%" if len(c) else "" for c in columns]
    print(f"| {label} | {len(own)} | {' | '.join(shown)} |")


def main() -> None:
    """Print the tables."""
    model = models.load("mini", "cpu")
    all_layers, chosen = list(attention.layers(model.unet)), attention.localizing_layers(model.unet)
    one = [drawn(model, *each) for each in scenes(50, things=1)]
    two = [drawn(model, *each) for each in scenes(50, things=2)]
    heads = ("boxes", "its word", "other words", "the other subject's", "middle", "chance")
    print(f"| peaks inside the subject's box | {' | '.join(heads)} |")
    print("| --- | --: | --: | --: | --: | --: | --: |")
    row("one subject, drawn", one, chosen)
    made = [case for each in scenes(50, things=1) if (case := generated(*each))]
    row("one subject, generated", made, [""])
    aside = [drawn(model, *each, shift=SHIFT) for each in scenes(50, things=1)]
    row("one subject, moved to a corner", aside, chosen)
    row("two subjects, drawn", two, chosen)
    for i, timestep in enumerate(TIMESTEPS):
        row(f"one, at t = {timestep}", one, chosen, slice(i, i + 1))
    row("one, all layers", one, all_layers)
    row("two, all layers", two, all_layers)
    for name in all_layers:
        brief = name.removesuffix(".transformer_blocks.0.attn2").replace(".attentions", "")
        side = one[0].maps[name].shape[-1]
        row(f"one, {brief} ({side} × {side})", one, [name])


if __name__ == "__main__":
    main()
