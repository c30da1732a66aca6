"""The images of README.md and docs/: `python -m benchmarks.docs_images [NAME ...]` draws them with the shipped weights.

The commands are those of docs/visualise.md. Screenshots of the web UI need Debian's chromium. benchmarks/inversion.py
makes the images of inversion, and `training.mini.model_card` the galaxies and the grid of the model card.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

FOLDER = Path(__file__).parents[1] / "docs" / "images"
DIFFUSEKIT = (sys.executable, "-m", "diffusekit")
STAR = ("a yellow star over the sea", "--seed", "7")
VERBS = {
    "attention.jpg": ("attention", "an orange cat on the beach", "--seed", "5"),
    "compare.jpg": ("compare", "a red cat", "a blue cat", "--seed", "4"),
    "samplers.jpg": ("samplers", "--seed", "1"),
    "tokens.jpg": ("tokens", "a red cat on the grass"),
    "denoise.webp": ("denoise", "an orange cat on the beach", "--seed", "5", "--steps", "12"),
}
WIDE = 1200


def run(*words: str) -> None:
    subprocess.run([*DIFFUSEKIT, *words], check=True, capture_output=True, text=True)


def visualise(name: str, *words: str) -> None:
    """Save what a verb draws. Stills become JPEG files, at most `WIDE` pixels wide."""
    target = FOLDER / name
    if target.suffix == ".webp":
        run("visualise", *words, "--output", str(target), "--overwrite")
        return
    with tempfile.TemporaryDirectory() as folder:
        still = Path(folder) / "still.png"
        run("visualise", *words, "--output", str(still))
        with Image.open(still) as image:
            small = image.convert("RGB")
            small.thumbnail((WIDE, WIDE * 4))
            small.save(target, quality=88)


def weights() -> None:
    """One word with five weights, and the share of the attention that it gets."""
    from diffusekit.visualise.attention_maps import record_attention_maps
    from diffusekit.visualise.contact_sheet import SheetCell, render_sheet

    cells = []
    for weight in (0.5, 0.75, 1.0, 1.25, 1.5):
        prompt = f"a cat and a (moon:{weight}) at night"
        trace, maps = record_attention_maps(prompt, seed=1, prompt_syntax="a1111")
        share = float(maps.mean_over_steps()[maps.words.index("moon")].mean())
        cells.append(SheetCell(trace.result.image, f"weight {weight}\n{share:.1%} of the attention"))
    render_sheet([cells], side=190, title="a cat and a (moon:…) at night").convert("RGB").save(
        FOLDER / "weights.jpg", quality=88
    )


def start_image() -> None:
    """A red cat turned blue, at three strengths."""
    from diffusekit import generate
    from diffusekit.visualise.contact_sheet import SheetCell, render_sheet

    cat = generate("a red cat on the grass", seed=3)[0]
    cells = [SheetCell(cat.image, "the start image")]
    for strength in (0.4, 0.6, 0.8):
        blue = generate("a blue cat on the grass", image=cat, strength=strength, seed=3)[0]
        cells.append(SheetCell(blue.image, f"strength {strength}"))
    sheet = render_sheet([cells], side=190, title="a blue cat on the grass")
    sheet.convert("RGB").save(FOLDER / "start-image.jpg", quality=88)


def mask() -> None:
    """A boat painted into a beach."""
    from diffusekit import generate
    from diffusekit.visualise.contact_sheet import SheetCell, render_sheet

    area = Image.new("L", (128, 128))
    area.paste(255, (32, 24, 104, 80))
    beach = generate("a beach by the sea", seed=5)[0]
    boat = generate("a boat on the sea at a beach", image=beach, mask=area, seed=4)[0]
    captions = {"the start image": beach.image, "the mask": area.convert("RGB"), "the result": boat.image}
    sheet = render_sheet(
        [[SheetCell(image, caption) for caption, image in captions.items()]],
        side=190,
        title="a boat on the sea at a beach",
    )
    sheet.convert("RGB").save(FOLDER / "mask.jpg", quality=88)


def noise() -> None:
    with tempfile.TemporaryDirectory() as folder:
        galaxy = Path(folder) / "galaxy.png"
        run("generate", "A beautiful galaxy", "--seed", "1", "--output", str(galaxy))
        visualise("noise.jpg", "noise", str(galaxy))


@contextmanager
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        yield chromium
        chromium.close()


def screenshot(page: Any, name: str) -> None:
    page.screenshot(path=FOLDER / name, type="jpeg", quality=85)


def lesson() -> None:
    with tempfile.TemporaryDirectory() as folder, browser() as chromium:
        file = Path(folder) / "lesson.html"
        run("visualise", "lesson", *STAR, "--output", str(file))
        page = chromium.new_page(viewport={"width": 1280, "height": 900})
        page.goto(file.as_uri())
        page.evaluate("at.value = 12; at.dispatchEvent(new Event('input'))")
        page.get_by_text("predicted image").first.click()
        page.get_by_text("star", exact=True).first.hover()
        page.wait_for_timeout(500)
        screenshot(page, "lesson.jpg")


@contextmanager
def serve() -> Iterator[str]:
    """Start a server in an empty folder and yield its address."""
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen([*DIFFUSEKIT, "serve", "--port", "0"], cwd=folder, stdout=subprocess.PIPE, text=True)
        assert process.stdout
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()
            process.wait(40)


PROMPTS = (
    "a red cat on the grass",
    "A beautiful galaxy",
    "a blue house by the sea",
    "a yellow car in the city",
    "an oil painting of a red boat by the sea",
    "an app icon of an orange cat",
    "a moon under a night sky",
    "a purple umbrella on the beach",
)


def web() -> None:
    """Take screenshots of the tabs after a few images and during a generation."""
    with serve() as address, browser() as chromium:
        page = chromium.new_page(viewport={"width": 1280, "height": 860})
        page.set_default_timeout(120_000)
        page.goto(address)
        page.wait_for_selector("#go")
        for prompt in PROMPTS:
            generate(page, prompt)
        tab(page, "Gallery")
        screenshot(page, "ui-gallery.jpg")
        page.set_viewport_size({"width": 1280, "height": 1000})
        tab(page, "See")
        page.get_by_role("button", name="Show").first.click()
        page.wait_for_timeout(20_000)
        screenshot(page, "ui-see.jpg")
        page.set_viewport_size({"width": 1280, "height": 860})
        tab(page, "Generate")
        page.locator("#prompt textarea").fill("A beautiful galaxy")
        if not page.locator("#seed").is_visible():
            page.locator("#settings button").first.click()
            page.wait_for_timeout(1_000)  # the fields get their defaults when they are unfolded
        steps = page.locator("#settings").get_by_label("Steps").first
        steps.fill("100")
        steps.press("Tab")
        page.click("#go")
        page.wait_for_function("document.querySelector('.stage progress')?.position > 0.5")
        screenshot(page, "ui-generate.jpg")
        page.wait_for_selector("#result img[data-testid=detailed-image]")
        phone = chromium.new_page(viewport={"width": 390, "height": 844})
        phone.goto(address)
        phone.wait_for_selector("#go")
        generate(phone, "a red cat on the grass")
        screenshot(phone, "ui-phone.jpg")


def generate(page: Any, prompt: str) -> None:
    page.locator("#prompt textarea").fill(prompt)
    page.click("#go")
    page.wait_for_selector("#stop", state="visible")
    page.wait_for_selector("#go", state="visible")
    page.wait_for_selector("#result img[data-testid=detailed-image]")


def tab(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name).click()
    page.wait_for_timeout(2_000)


MAKERS: dict[str, Callable[[], None]] = {
    **{name: (lambda n=name, w=words: visualise(n, *w)) for name, words in VERBS.items()},
    "noise.jpg": noise,
    "weights.jpg": weights,
    "start-image.jpg": start_image,
    "mask.jpg": mask,
    "lesson.jpg": lesson,
    "web": web,
}


def main() -> None:
    names = sys.argv[1:] or list(MAKERS)
    unknown = [name for name in names if name not in MAKERS]
    if unknown:
        sys.exit(f"unknown name {unknown[0]}: choose from {', '.join(MAKERS)}")
    for name in names:
        started = time.monotonic()
        MAKERS[name]()
        print(f"{name}: {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
