"""The grader's eye: which thing of which color is where in a picture, at which place, in which style.

A small convolutional network that finds the middles of things on a 16×16 grid (as CenterNet does; Zhou
et al., 2019). It is taught on pictures drawn by rules only and gives no loss to any other network.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from ..optimizers import warm_then_decay
from ..runtime import TimeBudget
from ..world.backgrounds import BACKGROUNDS
from ..world.pen import COLORS
from ..world.scenes import WHOLE_WORLD, Domain, Instance, Thing, draw_with_instances, sample
from ..world.styles import STYLES
from ..world.subjects import HELD_OUT, SUBJECTS
from .prompts import ImageContent

SIDE, GRID, MAX_INSTANCES = 64, 16, 4  # pixels, cells and at most so many things in a picture
SUBJECT_NAMES = (*(name for name in SUBJECTS if name not in HELD_OUT), "galaxy")
COLOR_NAMES, BACKGROUND_NAMES, STYLE_NAMES = tuple(COLORS), tuple(BACKGROUNDS), tuple(STYLES)
# Every style as often as any other, and many pairs and counts.
TRAINING_DOMAIN = replace(
    WHOLE_WORLD, styles=dict.fromkeys(STYLES, 1.0), galaxies=0.03, pairs=0.38, counts=0.25, empty=0.02
)
_UNKNOWN = -1  # a color that cannot be seen


@dataclass(frozen=True)
class LabeledImages:
    """Pictures (N, 64, 64, 3) uint8 and what they show: `spots` (N, 4, 5) are x, y, radius, subject and
    color, with -1 for none; `places` and `styles` (N,)."""

    pixels: np.ndarray
    instances: np.ndarray
    backgrounds: np.ndarray
    styles: np.ndarray

    def __len__(self) -> int:
        return len(self.pixels)


def shrink(picture: Image.Image) -> np.ndarray:
    """A picture at the size it is looked at, (64, 64, 3) uint8."""
    return np.asarray(picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX))


def render_range(part: Domain, start: int, count: int, seed: int) -> LabeledImages:
    pixels = np.empty((count, SIDE, SIDE, 3), np.uint8)
    spots = np.full((count, MAX_INSTANCES, 5), -1, np.float32)
    places, styles = np.empty(count, np.int64), np.empty(count, np.int64)
    for i in range(count):
        scene = sample(part, start + i, seed)
        picture, found = draw_with_instances(scene, start + i)
        pixels[i] = shrink(picture)
        for k, spot in enumerate(found):
            color = COLOR_NAMES.index(spot.thing.color) if spot.thing.color else _UNKNOWN
            subject = SUBJECT_NAMES.index(spot.thing.subject)
            spots[i, k] = spot.x, spot.y, spot.radius, subject, color
        shows = STYLES[scene.style].has_background
        places[i] = BACKGROUND_NAMES.index(scene.background) if shows else _UNKNOWN
        styles[i] = STYLE_NAMES.index(scene.style)
    return LabeledImages(pixels, spots, places, styles)


def render(part: Domain, count: int, seed: int, chunk: int = 500) -> LabeledImages:
    """`count` training pictures of a part of the world, drawn on every core."""
    starts = range(0, count, chunk)
    with ProcessPoolExecutor(mp_context=get_context("forkserver")) as pool:
        jobs = [pool.submit(render_range, part, s, min(chunk, count - s), seed) for s in starts]
        done = [job.result() for job in jobs]
    names = ("pixels", "instances", "backgrounds", "styles")
    return LabeledImages(*(np.concatenate([getattr(p, name) for p in done]) for name in names))


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
    """1.6 million parameters. Takes pictures (B, 3, 64, 64) in [-1, 1]."""

    def __init__(self, width: int = 64):
        super().__init__()
        self.fine = nn.Sequential(_conv(3, width // 2, 5, 2), _conv(width // 2, width, 3, 2), _Residual(width))
        self.wide = nn.Sequential(_conv(width, 2 * width, 3, 2), _Residual(2 * width), _Residual(2 * width))
        self.down = nn.Conv2d(2 * width, width, 1)
        self.join = _conv(width, width)
        # of every cell: is a thing's middle here, how far is it, how big is it; which subject, which color
        self.map = nn.Conv2d(width, 4 + len(SUBJECT_NAMES) + len(COLOR_NAMES), 1)
        self.place = nn.Linear(4 * width, len(BACKGROUND_NAMES))
        self.style = nn.Linear(3 * width, len(STYLE_NAMES))
        with torch.no_grad():
            bias = self.map.bias
            assert bias is not None
            bias[0] = -4.0

    def features(self, pictures: torch.Tensor) -> torch.Tensor:
        """(B, 128): what the widest layer sees, averaged over the picture."""
        return self.wide(self.fine(pictures)).mean((2, 3))

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Map (B, 4 + subjects + colors, 16, 16), and logits of place and style."""
        fine = self.fine(pictures)
        wide = self.wide(fine)
        joined = self.join(fine + F.interpolate(self.down(wide), scale_factor=2.0))
        mean = wide.mean((2, 3))
        place = self.place(torch.cat([mean, wide.amax((2, 3))], 1))
        return self.map(joined), place, self.style(torch.cat([mean, fine.mean((2, 3))], 1))


def targets(spots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of every cell how near a middle it is, (B, 16, 16) from 0 to 1, and its nearest spot (B, 16, 16, 5)."""
    middle = (torch.arange(GRID) + 0.5) / GRID
    y, x = torch.meshgrid(middle, middle, indexing="ij")
    dx = spots[:, :, 0, None, None] - x
    dy = spots[:, :, 1, None, None] - y
    far = dx**2 + dy**2 + 100.0 * (spots[:, :, 3, None, None] < 0)
    nearest, which = far.min(1)
    heat = torch.exp(-nearest * GRID**2 / 1.2)
    row = torch.arange(len(spots))[:, None, None]
    return heat, spots[row, which]


def loss(
    net: Detector,
    pictures: torch.Tensor,
    spots: torch.Tensor,
    places: torch.Tensor,
    styles: torch.Tensor,
) -> torch.Tensor:
    """How wrong the network is: CenterNet's focal loss for middles, cross-entropy for names."""
    found, place, style = net(pictures)
    heat, near = targets(spots)
    things = (spots[:, :, 3] >= 0).sum().clamp(min=1)
    logit = found[:, 0]
    chance = torch.sigmoid(logit)
    peak = (heat > 0.55).float()
    here = peak * heat * (1 - chance) ** 2 * -F.logsigmoid(logit)
    away = (1 - peak) * (1 - heat) ** 4 * chance**2 * -F.logsigmoid(-logit)
    total = (here + away).sum() / things
    weight = (heat * (heat > 0.3)).flatten()
    share = weight / weight.sum().clamp(min=1e-3)
    cells = found[:, 1:].permute(0, 2, 3, 1).reshape(len(weight), -1)
    near = near.reshape(-1, 5)
    x, y = _middles(len(pictures))
    to = torch.stack([(near[:, 0] - x) * GRID, (near[:, 1] - y) * GRID, near[:, 2] * 4], 1)
    total = total + ((cells[:, :3] - to).abs().sum(1) * share).sum()
    names = len(SUBJECT_NAMES)
    for logits, name in (
        (cells[:, 3 : 3 + names], near[:, 3]),
        (cells[:, 3 + names :], near[:, 4]),
    ):
        each = F.cross_entropy(logits, name.long(), ignore_index=_UNKNOWN, reduction="none")
        total = total + (each * share).sum()
    total = total + 0.5 * F.cross_entropy(style, styles)
    known = places != _UNKNOWN
    return total + 0.5 * F.cross_entropy(place[known], places[known]) if known.any() else total


def _middles(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    middle = (torch.arange(GRID) + 0.5) / GRID
    y, x = torch.meshgrid(middle, middle, indexing="ij")
    return x.flatten().repeat(count), y.flatten().repeat(count)


def augment(pictures: torch.Tensor, spots: torch.Tensor, random: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """A half of the pictures moved and zoomed a little, a third softened, all with a little noise and
    another brightness: what decoders and denoisers do to pictures."""
    count = len(pictures)

    def draw(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(count, generator=random)

    moved = (draw(0, 1) < 0.5).float()
    zoom = 1 + moved * draw(-0.12, 0.12)
    sx, sy = moved * draw(-0.12, 0.12), moved * draw(-0.12, 0.12)
    zero = torch.zeros(count)
    turn = torch.stack([torch.stack([zoom, zero, sx], 1), torch.stack([zero, zoom, sy], 1)], 1)
    where = F.affine_grid(turn, list(pictures.shape), align_corners=False)
    pictures = F.grid_sample(pictures, where, padding_mode="border", align_corners=False)
    spots = spots.clone()
    for axis, shift in ((0, sx), (1, sy)):
        spots[:, :, axis] = ((2 * spots[:, :, axis] - 1 - shift[:, None]) / zoom[:, None] + 1) / 2
    spots[:, :, 2] /= zoom[:, None]
    soft = F.avg_pool2d(F.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, 1)
    amount = ((draw(0, 1) < 0.33).float() * draw(0.2, 0.9))[:, None, None, None]
    pictures = pictures + amount * (soft - pictures)
    noise = torch.randn(pictures.shape, generator=random) * draw(0, 0.06)[:, None, None, None]
    bright = draw(0.93, 1.07)[:, None, None, None]
    pictures = (pictures * bright + noise).clamp(-1, 1)
    return pictures.contiguous(memory_format=torch.channels_last), spots


def batches(data: LabeledImages, size: int, seed: int) -> Iterator[tuple[torch.Tensor, ...]]:
    """Varied pictures and what they show, without end."""
    random, order = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    while True:
        shuffled = order.permutation(len(data))
        for start in range(0, max(len(data) - size, 1), size):
            rows = shuffled[start : start + size]
            pictures = torch.from_numpy(data.pixels[rows]).permute(0, 3, 1, 2).float() / 127.5 - 1
            varied = augment(pictures, torch.from_numpy(data.instances[rows]), random)
            yield *varied, torch.from_numpy(data.backgrounds[rows]), torch.from_numpy(data.styles[rows])


def train(
    data: LabeledImages,
    clock: TimeBudget,
    *,
    net: Detector | None = None,
    say: Callable[[str], None] = print,
    batch: int = 64,
    seed: int = 0,
) -> Detector:
    """A recognizer taught on rendered pictures until the clock has run out; `net` is one to teach further."""
    torch.manual_seed(seed)
    rate = 3e-3 if net is None else 1.5e-3
    net = (net or Detector()).train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), rate, weight_decay=0.02)
    running = 0.0
    for lesson in batches(data, batch, seed):
        if clock.progress >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = rate * warm_then_decay(clock.progress, clock.step, warmup=60, flat=0.2)
        error = loss(net, *lesson)
        error.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        clock.step += 1
        running += 0.05 * (error.item() - running) if clock.step > 1 else error.item()
        if clock.step % 100 == 0:
            say(f"recognizer: step {clock.step}, {clock.progress:.0%}, loss {running:.3f}")
    return net.eval()


@torch.no_grad()
def detect(net: Detector, pictures: torch.Tensor, floor: float = 0.4) -> list[ImageContent]:
    """What pictures (N, 3, H, W) in [-1, 1] show; a thing is where the map peaks above `floor`."""
    seen = []
    for some in resize(pictures).split(100):
        found, place, style = net(some)
        heat = torch.sigmoid(found[:, 0])
        peaks = (heat >= F.max_pool2d(heat[:, None], 3, 1, 1)[:, 0]) & (heat > floor)
        for i in range(len(some)):
            spots = tuple(_spot(found[i, 1:, y, x], x, y) for y, x in peaks[i].nonzero().tolist())
            seen.append(
                ImageContent(spots, BACKGROUND_NAMES[int(place[i].argmax())], STYLE_NAMES[int(style[i].argmax())])
            )
    return seen


@torch.no_grad()
def features(net: Detector, pictures: torch.Tensor) -> torch.Tensor:
    """(N, 128) of pictures (N, 3, H, W) in [-1, 1]."""
    return torch.cat([net.features(some) for some in resize(pictures).split(100)])


def resize(pictures: torch.Tensor) -> torch.Tensor:
    """Pictures at the size they are looked at; the mean of pixels, as `shrunk` takes it."""
    return F.interpolate(pictures.float(), (SIDE, SIDE), mode="area")


def _spot(cell: torch.Tensor, x: int, y: int) -> Instance:
    """What one cell of the map says; a galaxy's color is not asked for."""
    names = len(SUBJECT_NAMES)
    subject = SUBJECT_NAMES[int(cell[3 : 3 + names].argmax())]
    color = COLOR_NAMES[int(cell[3 + names :].argmax())]
    dx, dy, size = cell[:3].tolist()
    return Instance(Thing(subject, color), (x + 0.5 + dx) / GRID, (y + 0.5 + dy) / GRID, size / 4)


def load_or_train(
    folder: Path,
    *,
    minutes: float,
    pictures: int,
    more: float = 0,
    steps: int | None = None,
    say: Callable[[str], None] = print,
) -> Detector:
    """The recognizer of a folder; taught first, for `minutes`, when there is none. `more` minutes are
    added to one that is there."""
    path, net, seed = folder / "recognizer.pt", None, 31
    if path.exists():
        net = Detector()
        net.load_state_dict(torch.load(path, weights_only=True))
        if not more:
            return net.eval()
        minutes, seed = more, int(path.stat().st_mtime)  # other pictures than before
    say(f"recognizer: drawing {pictures} pictures")
    data = render(TRAINING_DOMAIN, pictures, seed)
    net = train(data, TimeBudget(minutes, steps), net=net, say=say, seed=seed)
    folder.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".new")
    torch.save(net.state_dict(), beside)
    beside.replace(path)
    return net


def images_to_tensor(pictures: Sequence[Image.Image]) -> torch.Tensor:
    """PIL pictures of one size as (N, 3, H, W) in [-1, 1]."""
    pixels = np.stack([np.asarray(p.convert("RGB")) for p in pictures])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
