"""The tables of docs/visualise.md, "Does it point?": `python -m benchmarks.attention_localization`.

The pointing game (Zhang et al., 2016): is the peak of a word's attention map inside the box of its subject?
Scenes that `mini` was not trained on are drawn, so the box is known. They are noised and given to the U-Net with their
caption. Then images are generated from the same captions. There the box is where the image differs from one of the
background alone with the same seed. Every run gives the same numbers.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from PIL import Image, ImageFilter

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
Box = tuple[float, float, float, float]  # left, top, right, bottom in fractions of the image


@dataclass(frozen=True)
class Case:
    """The words of a caption, the boxes of its subjects by word index, and the maps of each layer.

    Maps are (timesteps, words, h, w).
    """

    words: list[str]
    boxes: dict[int, Box]
    maps: dict[str, torch.Tensor]

    def reduced(self, layers: list[str], steps: slice = slice(None)) -> torch.Tensor:
        """Return the mean over layers and timesteps (words, h, w), at the size of the finest layer."""
        size = max(self.maps[name].shape[-2:] for name in layers)
        maps = [
            torch.nn.functional.interpolate(self.maps[name][steps].float(), tuple(size), mode="bilinear")
            for name in layers
        ]
        return torch.stack(maps).mean((0, 1))


def scenes(count: int, *, things: int) -> Iterator[tuple[int, Scene]]:
    """Yield the first held-out combinations with `things` different subjects, one of each."""
    index = 0
    while count:
        scene = sample(FIRST_PART, index, WORLD, unseen=True)
        if len(scene.things) == things and all(t.count == 1 and t.subject != "galaxy" for t in scene.things):
            count -= 1
            yield index, scene
        index += 1


def draw_case(model: Model, index: int, scene: Scene, *, shift: float = 0.0) -> Case:
    """Draw a scene, noise it to all TIMESTEPS, and record the attention of the U-Net to its caption.

    `shift` moves the image by that share of its side towards one corner and repeats its edge pixels. The subjects of
    `mini` are near the center, so a map could have its peak there for any word.
    """
    image, instances = draw_with_instances(scene, index)
    dx, dy = (shift * Random(f"{index}{axis}").choice((-1, 1)) for axis in "xy")
    image = shift_image(image, round(dx * image.width), round(dy * image.height))
    pixels = torch.from_numpy(np.asarray(image, np.float32).transpose(2, 0, 1) / 127.5 - 1)[None]
    prompt = caption(scene, Random(index))
    words = text.word_spans(model, text.tokenize(model, prompt))
    with torch.no_grad():
        x0 = model.vae.encode(pixels).latent_dist.mean * model.vae.config.scaling_factor
        eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(index))
        times = torch.tensor(TIMESTEPS)
        alpha_bar = schedule.make_scheduler("ddim", model.scheduler_config).alphas_cumprod[times].view(-1, 1, 1, 1)
        noised = alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * eps
        cond = text.encode(model, [prompt] * len(times))
        with attention.record(model.unet) as maps:
            model.unet(noised, times, **cond.unet_kwargs())
            layers = {name: word_maps(each, words) for name, each in maps.per_layer().items()}
    names = [w.text for w in words]
    boxes = {
        names.index(s.thing.subject): (s.box[0] + dx, s.box[1] + dy, s.box[2] + dx, s.box[3] + dy) for s in instances
    }
    return Case(names, boxes, layers)


def shift_box(box: Box, dx: float, dy: float) -> Box:
    return box[0] + dx, box[1] + dy, box[2] + dx, box[3] + dy


def shift_image(image: Image.Image, dx: int, dy: int) -> Image.Image:
    """Move an image by (dx, dy) pixels and repeat its edge pixels."""
    pixels = np.asarray(image)
    h, w = pixels.shape[:2]
    wide = np.pad(pixels, ((abs(dy), abs(dy)), (abs(dx), abs(dx)), (0, 0)), mode="edge")
    top, left = abs(dy) - dy, abs(dx) - dx
    return Image.fromarray(wide[top : top + h, left : left + w])


def generate_case(index: int, scene: Scene) -> Case | None:
    """Generate an image from the caption of a scene. The box is where it differs from one of the background alone.

    None if the two images hardly differ, or everywhere. Then the position of the subject is unknown.
    """
    prompt = caption(scene, Random(index))
    background = BACKGROUNDS[scene.background][0] if STYLES[scene.style].has_background else ""
    without = STYLES[scene.style].phrases[0].format(f"nothing {background}".strip())
    settings = {"steps": 10, "seed": index, "device": "cpu"}
    trace, heat = record_attention_maps(prompt, **settings)
    other, _ = record_attention_maps(without, **settings)
    box = changed_box(trace.result.image, other.result.image)
    if box is None:
        return None
    words = list(heat.words[1:-1])
    return Case(words, {words.index(scene.things[0].subject): box}, {"": heat.maps})


def changed_box(a: Image.Image, b: Image.Image) -> Box | None:
    """Return the box of the pixels that differ by more than half of the largest difference, after a small blur."""
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


def hit(attention_map: torch.Tensor, box: Box) -> bool:
    x, y = peak_position(attention_map, (1, 1))
    return box[0] <= x <= box[2] and box[1] <= y <= box[3]


def row(label: str, cases: list[Case], layers: list[str], steps: slice = slice(None)) -> None:
    """Print the percentage of peaks inside the box of a subject.

    Columns: its own word, the mean of the other words, the word of the other subject, the center of the image, chance.
    """
    own, others, rival, center, chance = [], [], [], [], []
    for case in cases:
        maps = case.reduced(layers, steps)[1:-1]
        for index, box in case.boxes.items():
            own.append(hit(maps[index], box))
            other_words = [i for i in range(len(maps)) if i not in case.boxes]
            others.append(np.mean([hit(maps[i], box) for i in other_words]) if other_words else np.nan)
            rival += [hit(maps[i], box) for i in case.boxes if i != index]
            center.append(box[0] <= 0.5 <= box[2] and box[1] <= 0.5 <= box[3])
            chance.append(area(box))
    columns = (own, others, rival, center, chance)
    cells = [f"{100 * np.nanmean(c):.0f}%" if len(c) else "" for c in columns]
    print(f"| {label} | {len(own)} | {' | '.join(cells)} |")


def main() -> None:
    """Print the tables."""
    model = models.load("mini", "cpu")
    all_layers, chosen = list(attention.layers(model.unet)), attention.localizing_layers(model.unet)
    one = [draw_case(model, *each) for each in scenes(50, things=1)]
    two = [draw_case(model, *each) for each in scenes(50, things=2)]
    heads = ("boxes", "its word", "other words", "the other subject's", "middle", "chance")
    print(f"| peaks inside the subject's box | {' | '.join(heads)} |")
    print("| --- | --: | --: | --: | --: | --: | --: |")
    row("one subject, drawn", one, chosen)
    generated = [case for each in scenes(50, things=1) if (case := generate_case(*each))]
    row("one subject, generated", generated, [""])
    shifted = [draw_case(model, *each, shift=SHIFT) for each in scenes(50, things=1)]
    row("one subject, moved to a corner", shifted, chosen)
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
