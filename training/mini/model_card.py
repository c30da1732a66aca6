"""The pictures of the model card: `python -m training.mini.model_card` draws them with the shipped weights.

Twenty prompts that show what `mini` can and cannot do, and twelve seeds of one galaxy. First seeds,
not chosen ones.
"""

import textwrap
from pathlib import Path

from PIL import Image, ImageDraw

import diffusekit

PROMPTS = (
    "A beautiful galaxy",
    "an orange galaxy",
    "a planet in space",
    "a red rocket among the stars",
    "a cat on the grass",
    "a blue house by the sea",
    "a yellow car in the city",
    "a white rabbit in the snow",
    "two red apples in a room",
    "three yellow birds on the beach",
    "a green tree to the left of a red house on the grass",
    "a purple umbrella on the beach",
    "a black dog in a forest",
    "a turquoise backpack in the mountains",
    "pixel art of a blue fish",
    "an app icon of an orange cat",
    "a blue teapot in a room",
    "an oil painting of a red boat by the sea",
    "an oil painting of a castle in the mountains",
    "a moon under a night sky",
)
SCALE = 1.5


def draw_sheet(prompts: list[str], seeds: list[int], columns: int, *, captions: bool) -> Image.Image:
    """One picture per prompt and seed, side by side, with the prompt below."""
    found = [diffusekit.generate(prompt, seed=seed)[0].image for prompt, seed in zip(prompts, seeds, strict=True)]
    side = round(found[0].width * SCALE)
    below = 34 if captions else 0
    rows = -(-len(found) // columns)
    page = Image.new("RGB", (side * columns, (side + below) * rows), "white")
    pen = ImageDraw.Draw(page)
    for i, (picture, prompt) in enumerate(zip(found, prompts, strict=True)):
        x, y = i % columns * side, i // columns * (side + below)
        page.paste(picture.resize((side, side), Image.Resampling.LANCZOS), (x, y))
        if captions:
            pen.text((x + 4, y + side + 3), textwrap.fill(prompt, 34), fill="black", font_size=11)
    return page


def main() -> None:
    pictures = Path("docs/pictures")
    pictures.mkdir(parents=True, exist_ok=True)
    grid = draw_sheet(list(PROMPTS), [1] * len(PROMPTS), 5, captions=True)
    grid.save(Path(diffusekit.__file__).parent / "mini" / "grid.jpg", quality=88)
    galaxies = draw_sheet(["A beautiful galaxy"] * 12, list(range(1, 13)), 6, captions=False)
    galaxies.save(pictures / "galaxies.jpg", quality=88)


if __name__ == "__main__":
    main()
