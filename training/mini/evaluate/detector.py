"""The detector of the grader: which thing of which color is where in an image, the background and the style.

A small convolutional network that finds the centers of things on a 16×16 grid, like CenterNet (Zhou et al., 2019). It
is trained on rendered images only, and no other network is trained with it.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from ..optimizers import set_learning_rate, warm_then_decay
from ..runtime import TimeBudget
from ..world.backgrounds import BACKGROUNDS
from ..world.pen import COLORS
from ..world.scenes import WHOLE_WORLD, Domain, Instance, Thing, draw_with_instances, sample
from ..world.styles import STYLES
from ..world.subjects import HELD_OUT, SUBJECTS
from .prompts import ImageContent

SIDE, GRID, MAX_INSTANCES = 64, 16, 4  # pixels, cells, and things in an image
SUBJECT_NAMES = (*(name for name in SUBJECTS if name not in HELD_OUT), "galaxy")
COLOR_NAMES, BACKGROUND_NAMES, STYLE_NAMES = tuple(COLORS), tuple(BACKGROUNDS), tuple(STYLES)
# All styles equally often, and many pairs and counts.
TRAINING_DOMAIN = replace(
    WHOLE_WORLD, styles=dict.fromkeys(STYLES, 1.0), galaxies=0.03, pairs=0.38, counts=0.25, empty=0.02
)
_UNKNOWN = -1  # a color or a background that the image does not show


@dataclass(frozen=True)
class LabeledImages:
    """Images and what they show, by index. A subject, color or background of -1 is none."""

    pixels: np.ndarray  # (N, 64, 64, 3) uint8
    instances: np.ndarray  # (N, 4, 5): x, y, radius, subject, color
    backgrounds: np.ndarray  # (N,)
    styles: np.ndarray  # (N,)

    def __len__(self) -> int:
        return len(self.pixels)


def shrink(image: Image.Image) -> np.ndarray:
    """Resize an image for the detector: (64, 64, 3) uint8."""
    return np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX))


def render_range(domain: Domain, start: int, count: int, seed: int) -> LabeledImages:
    """Draw scenes `start` to `start + count` of a domain, in this process."""
    pixels = np.empty((count, SIDE, SIDE, 3), np.uint8)
    instances = np.full((count, MAX_INSTANCES, 5), -1, np.float32)
    backgrounds, styles = np.empty(count, np.int64), np.empty(count, np.int64)
    for i in range(count):
        scene = sample(domain, start + i, seed)
        image, drawn = draw_with_instances(scene, start + i)
        pixels[i] = shrink(image)
        for k, instance in enumerate(drawn):
            thing = instance.thing
            color = COLOR_NAMES.index(thing.color) if thing.color else _UNKNOWN
            subject = SUBJECT_NAMES.index(thing.subject)
            instances[i, k] = instance.x, instance.y, instance.radius, subject, color
        has_background = STYLES[scene.style].has_background
        backgrounds[i] = BACKGROUND_NAMES.index(scene.background) if has_background else _UNKNOWN
        styles[i] = STYLE_NAMES.index(scene.style)
    return LabeledImages(pixels, instances, backgrounds, styles)


def render(domain: Domain, count: int, seed: int, chunk: int = 500) -> LabeledImages:
    """Draw `count` training images of a domain, on every core."""
    starts = range(0, count, chunk)
    with ProcessPoolExecutor(mp_context=get_context("forkserver")) as pool:
        futures = [pool.submit(render_range, domain, s, min(chunk, count - s), seed) for s in starts]
        chunks = [future.result() for future in futures]
    names = ("pixels", "instances", "backgrounds", "styles")
    return LabeledImages(*(np.concatenate([getattr(c, name) for c in chunks]) for name in names))


def _conv(inward: int, outward: int, size: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inward, outward, size, stride, size // 2, bias=False),
        nn.BatchNorm2d(outward),
        nn.ReLU(inplace=True),
    )


class _Residual(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.way = nn.Sequential(
            _conv(width, width),
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x + self.way(x))


class Detector(nn.Module):
    """A network of 0.8 million parameters. Takes images (B, 3, 64, 64) in [-1, 1]."""

    def __init__(self, width: int = 64):
        super().__init__()
        self.fine = nn.Sequential(_conv(3, width // 2, 5, 2), _conv(width // 2, width, 3, 2), _Residual(width))
        self.wide = nn.Sequential(_conv(width, 2 * width, 3, 2), _Residual(2 * width), _Residual(2 * width))
        self.down = nn.Conv2d(2 * width, width, 1)
        self.join = _conv(width, width)
        # of every cell: probability of a center, offset to it, radius, subject, color
        self.map = nn.Conv2d(width, 4 + len(SUBJECT_NAMES) + len(COLOR_NAMES), 1)
        self.place = nn.Linear(4 * width, len(BACKGROUND_NAMES))
        self.style = nn.Linear(3 * width, len(STYLE_NAMES))
        with torch.no_grad():
            bias = self.map.bias
            assert bias is not None
            bias[0] = -4.0

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Return the mean of the widest layer over the image, (B, 128)."""
        return self.wide(self.fine(images)).mean((2, 3))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return a map (B, 4 + subjects + colors, 16, 16) and the logits of background and style."""
        fine = self.fine(images)
        wide = self.wide(fine)
        joined = self.join(fine + F.interpolate(self.down(wide), scale_factor=2.0))
        mean = wide.mean((2, 3))
        background = self.place(torch.cat([mean, wide.amax((2, 3))], 1))
        return self.map(joined), background, self.style(torch.cat([mean, fine.mean((2, 3))], 1))


def targets(instances: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return how near each cell is to a center (B, 16, 16), from 0 to 1, and its nearest instance (B, 16, 16, 5)."""
    center = (torch.arange(GRID) + 0.5) / GRID
    y, x = torch.meshgrid(center, center, indexing="ij")
    dx = instances[:, :, 0, None, None] - x
    dy = instances[:, :, 1, None, None] - y
    distance = dx**2 + dy**2 + 100.0 * (instances[:, :, 3, None, None] < 0)
    nearest, index = distance.min(1)
    heat = torch.exp(-nearest * GRID**2 / 1.2)
    row = torch.arange(len(instances))[:, None, None]
    return heat, instances[row, index]


def loss(
    net: Detector,
    images: torch.Tensor,
    instances: torch.Tensor,
    backgrounds: torch.Tensor,
    styles: torch.Tensor,
) -> torch.Tensor:
    """Return CenterNet's focal loss for centers plus cross-entropy for names."""
    output, background, style = net(images)
    heat, nearest = targets(instances)
    total = _center_loss(output[:, 0], heat, (instances[:, :, 3] >= 0).sum().clamp(min=1))
    weight = (heat * (heat > 0.3)).flatten()
    share = weight / weight.sum().clamp(min=1e-3)
    cells = output[:, 1:].permute(0, 2, 3, 1).reshape(len(weight), -1)
    nearest = nearest.reshape(-1, 5)
    x, y = _cell_centers(len(images))
    box = torch.stack([(nearest[:, 0] - x) * GRID, (nearest[:, 1] - y) * GRID, nearest[:, 2] * 4], 1)
    total = total + ((cells[:, :3] - box).abs().sum(1) * share).sum()
    names = len(SUBJECT_NAMES)
    for logits, name in ((cells[:, 3 : 3 + names], nearest[:, 3]), (cells[:, 3 + names :], nearest[:, 4])):
        each = F.cross_entropy(logits, name.long(), ignore_index=_UNKNOWN, reduction="none")
        total = total + (each * share).sum()
    total = total + 0.5 * F.cross_entropy(style, styles)
    known = backgrounds != _UNKNOWN
    return total + 0.5 * F.cross_entropy(background[known], backgrounds[known]) if known.any() else total


def _center_loss(logit: torch.Tensor, heat: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    probability = torch.sigmoid(logit)
    peak = (heat > 0.55).float()
    here = peak * heat * (1 - probability) ** 2 * -F.logsigmoid(logit)
    away = (1 - peak) * (1 - heat) ** 4 * probability**2 * -F.logsigmoid(-logit)
    return (here + away).sum() / count


def _cell_centers(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    center = (torch.arange(GRID) + 0.5) / GRID
    y, x = torch.meshgrid(center, center, indexing="ij")
    return x.flatten().repeat(count), y.flatten().repeat(count)


def augment(
    images: torch.Tensor, instances: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Change images as decoders and denoisers do, and their instances with them.

    Half of them are moved and zoomed a little, a third are blurred. All get a little noise and another brightness.
    """
    count = len(images)

    def draw(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    is_moved = (draw(0, 1) < 0.5).float()
    zoom = 1 + is_moved * draw(-0.12, 0.12)
    sx, sy = is_moved * draw(-0.12, 0.12), is_moved * draw(-0.12, 0.12)
    zero = torch.zeros(count)
    transform = torch.stack([torch.stack([zoom, zero, sx], 1), torch.stack([zero, zoom, sy], 1)], 1)
    grid = F.affine_grid(transform, list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    instances = instances.clone()
    for axis, shift in ((0, sx), (1, sy)):
        instances[:, :, axis] = ((2 * instances[:, :, axis] - 1 - shift[:, None]) / zoom[:, None] + 1) / 2
    instances[:, :, 2] /= zoom[:, None]
    soft = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
    amount = ((draw(0, 1) < 0.33).float() * draw(0.2, 0.9))[:, None, None, None]
    images = images + amount * (soft - images)
    noise = torch.randn(images.shape, generator=generator) * draw(0, 0.06)[:, None, None, None]
    brightness = draw(0.93, 1.07)[:, None, None, None]
    images = (images * brightness + noise).clamp(-1, 1)
    return images.contiguous(memory_format=torch.channels_last), instances


def batches(data: LabeledImages, size: int, seed: int) -> Iterator[tuple[torch.Tensor, ...]]:
    """Yield augmented images and their labels, without end."""
    generator, order = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    while True:
        shuffled = order.permutation(len(data))
        for start in range(0, max(len(data) - size, 1), size):
            rows = shuffled[start : start + size]
            images = torch.from_numpy(data.pixels[rows]).permute(0, 3, 1, 2).float() / 127.5 - 1
            augmented = augment(images, torch.from_numpy(data.instances[rows]), generator)
            yield *augmented, torch.from_numpy(data.backgrounds[rows]), torch.from_numpy(data.styles[rows])


def train(
    data: LabeledImages,
    budget: TimeBudget,
    *,
    net: Detector | None = None,
    log: Callable[[str], None] = print,
    batch: int = 64,
    seed: int = 0,
) -> Detector:
    """Train a detector, or `net` further, on rendered images until the budget is spent."""
    torch.manual_seed(seed)
    rate = 3e-3 if net is None else 1.5e-3
    net = (net or Detector()).train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), rate, weight_decay=0.02)
    running = 0.0
    for labeled in batches(data, batch, seed):
        if budget.progress >= 1:
            break
        set_learning_rate([optimizer], rate * warm_then_decay(budget.progress, budget.step, warmup=60, flat=0.2))
        error = loss(net, *labeled)
        error.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        budget.step += 1
        running += 0.05 * (error.item() - running) if budget.step > 1 else error.item()
        if budget.step % 100 == 0:
            log(f"detector: step {budget.step}, {budget.progress:.0%}, loss {running:.3f}")
    return net.eval()


@torch.no_grad()
def detect(net: Detector, images: torch.Tensor, threshold: float = 0.4) -> list[ImageContent]:
    """Return what images (N, 3, H, W) in [-1, 1] show. A thing is where the map has a peak above `threshold`."""
    contents = []
    for some in resize(images).split(100):
        output, background, style = net(some)
        heat = torch.sigmoid(output[:, 0])
        peaks = (heat >= F.max_pool2d(heat[:, None], 3, 1, 1)[:, 0]) & (heat > threshold)
        for i in range(len(some)):
            instances = tuple(_decode_cell(output[i, 1:, y, x], x, y) for y, x in peaks[i].nonzero().tolist())
            names = BACKGROUND_NAMES[int(background[i].argmax())], STYLE_NAMES[int(style[i].argmax())]
            contents.append(ImageContent(instances, *names))
    return contents


@torch.no_grad()
def features(net: Detector, images: torch.Tensor) -> torch.Tensor:
    """Return features (N, 128) of images (N, 3, H, W) in [-1, 1]."""
    return torch.cat([net.features(some) for some in resize(images).split(100)])


def resize(images: torch.Tensor) -> torch.Tensor:
    """Resize images to the size of the detector, with the mean of pixels like `shrink`."""
    return F.interpolate(images.float(), (SIDE, SIDE), mode="area")


def _decode_cell(cell: torch.Tensor, x: int, y: int) -> Instance:
    """Convert one cell of the map. No question asks for the color of a galaxy."""
    names = len(SUBJECT_NAMES)
    subject = SUBJECT_NAMES[int(cell[3 : 3 + names].argmax())]
    color = COLOR_NAMES[int(cell[3 + names :].argmax())]
    dx, dy, size = cell[:3].tolist()
    return Instance(Thing(subject, color), (x + 0.5 + dx) / GRID, (y + 0.5 + dy) / GRID, size / 4)


def load_or_train(
    folder: Path,
    *,
    minutes: float,
    images: int,
    more: float = 0,
    steps: int | None = None,
    log: Callable[[str], None] = print,
) -> Detector:
    """Load the detector of a folder, or train one for `minutes`. An existing one is trained for `more` minutes."""
    path, net, seed = folder / "recognizer.pt", None, 31
    if path.exists():
        net = Detector()
        net.load_state_dict(torch.load(path, weights_only=True))
        if not more:
            return net.eval()
        minutes, seed = more, int(path.stat().st_mtime)  # other images than before
    log(f"detector: drawing {images} images")
    data = render(TRAINING_DOMAIN, images, seed)
    net = train(data, TimeBudget(minutes, steps), net=net, log=log, seed=seed)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    torch.save(net.state_dict(), temporary)
    temporary.replace(path)
    return net
