"""Draw the images of the model card with the shipped weights: `python -m training.mini.model_card`.

Twenty prompts that show what `mini` can and cannot do, and twelve seeds of one galaxy. These are the first seeds, not
selected ones.
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
    """Generate one image for each prompt and seed, and put them side by side with the prompts below."""
    images = [diffusekit.generate(prompt, seed=seed)[0].image for prompt, seed in zip(prompts, seeds, strict=True)]
    side = round(images[0].width * SCALE)
    label_height = 34 if captions else 0
    rows = -(-len(images) // columns)
    page = Image.new("RGB", (side * columns, (side + label_height) * rows), "white")
    pen = ImageDraw.Draw(page)
    for i, (image, prompt) in enumerate(zip(images, prompts, strict=True)):
        x, y = i % columns * side, i // columns * (side + label_height)
        page.paste(image.resize((side, side), Image.Resampling.LANCZOS), (x, y))
        if captions:
            pen.text((x + 4, y + side + 3), textwrap.fill(prompt, 34), fill="black", font_size=11)
    return page


def main() -> None:
    folder = Path("docs/images")
    folder.mkdir(parents=True, exist_ok=True)
    grid = draw_sheet(list(PROMPTS), [1] * len(PROMPTS), 5, captions=True)
    grid.save(Path(diffusekit.__file__).parent / "mini" / "grid.jpg", quality=88)
    galaxies = draw_sheet(["A beautiful galaxy"] * 12, list(range(1, 13)), 6, captions=False)
    galaxies.save(folder / "galaxies.jpg", quality=88)


if __name__ == "__main__":
    main()
