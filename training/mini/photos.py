"""Pictures to learn a token from: `python -m training.mini.photos owl build/owl` draws five of one owl.

Always the same owl, of one color, in five places, and beside each a caption that says which; the six
held-out subjects were never shown to `mini`.
"""

import argparse
from pathlib import Path

from PIL import Image

from .world.backgrounds import BACKGROUNDS as PHRASES
from .world.scenes import Scene, Thing, draw
from .world.subjects import SUBJECTS

PHOTO_BACKGROUNDS = ("grass", "forest", "room", "street", "desert")


def draw_photos(subject: str, color: str | None = None, side: int = 128) -> list[Image.Image]:
    """Five pictures of one thing, of its natural color unless another is given."""
    thing = Thing(subject, color or SUBJECTS[subject].color)
    return [draw(Scene((thing,), background=place), i, side) for i, place in enumerate(PHOTO_BACKGROUNDS)]


def caption_templates() -> list[str]:
    """A caption of each of the five, with `{}` for the thing."""
    return [f"a picture of {{}} {PHRASES[place][0]}" for place in PHOTO_BACKGROUNDS]


def write_photos(subject: str, folder: Path, color: str | None = None, *, captions: bool = True) -> None:
    """The five pictures in a folder, with a caption beside each."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, (picture, said) in enumerate(zip(draw_photos(subject, color), caption_templates(), strict=True)):
        picture.save(folder / f"{i:02}.png")
        if captions:
            (folder / f"{i:02}.txt").write_text(said + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.mini.photos", description=__doc__)
    parser.add_argument("subject", choices=sorted(SUBJECTS))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--color", help="default: the subject's natural one")
    parser.add_argument("--no-captions", action="store_true", help="only the pictures")
    options = parser.parse_args()
    write_photos(options.subject, options.folder, options.color, captions=not options.no_captions)


if __name__ == "__main__":
    main()
