"""Draw images to learn a token from: `python -m training.mini.photos owl build/owl` draws five of the same owl.

The owl has one color and stands in front of five backgrounds. A caption beside each image names the background. The
six held-out subjects are the ones that `mini` has never been trained on.
"""

import argparse
from pathlib import Path

from PIL import Image

from .world.backgrounds import BACKGROUNDS
from .world.scenes import Scene, Thing, draw
from .world.subjects import SUBJECTS

PHOTO_BACKGROUNDS = ("grass", "forest", "room", "street", "desert")


def draw_photos(subject: str, color: str | None = None, side: int = 128) -> list[Image.Image]:
    """Draw five images of one thing, in its natural color unless another is given."""
    thing = Thing(subject, color or SUBJECTS[subject].color)
    return [draw(Scene((thing,), background=name), i, side) for i, name in enumerate(PHOTO_BACKGROUNDS)]


def caption_templates() -> list[str]:
    """Return the caption of each of the five, with `{}` for the thing."""
    return [f"a picture of {{}} {BACKGROUNDS[name][0]}" for name in PHOTO_BACKGROUNDS]


def write_photos(subject: str, folder: Path, color: str | None = None, *, captions: bool = True) -> None:
    """Write the five images to a folder, with a caption beside each."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, (image, text) in enumerate(zip(draw_photos(subject, color), caption_templates(), strict=True)):
        image.save(folder / f"{i:02}.png")
        if captions:
            (folder / f"{i:02}.txt").write_text(text + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.mini.photos", description=__doc__)
    parser.add_argument("subject", choices=sorted(SUBJECTS))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--color", help="default: the natural color of the subject")
    parser.add_argument("--no-captions", action="store_true", help="only the images")
    options = parser.parse_args()
    write_photos(options.subject, options.folder, options.color, captions=not options.no_captions)


if __name__ == "__main__":
    main()
