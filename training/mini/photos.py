"""Pictures to learn a token from: `python -m training.mini.photos owl build/owl` draws five of one owl.

Always the same owl, of one color, in five places; the six held-out subjects were never shown to `mini`.
"""

import argparse
from pathlib import Path

from PIL import Image

from .subjects import SUBJECTS
from .world import Scene, Thing, draw

PLACES = ("grass", "forest", "room", "street", "desert")


def photos(subject: str, color: str | None = None, side: int = 128) -> list[Image.Image]:
    """Five pictures of one thing, of its natural color unless another is given."""
    thing = Thing(subject, color or SUBJECTS[subject].color)
    return [draw(Scene((thing,), place=place), i, side) for i, place in enumerate(PLACES)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.mini.photos", description=__doc__)
    parser.add_argument("subject", choices=sorted(SUBJECTS))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--color", help="default: the subject's natural one")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for i, picture in enumerate(photos(options.subject, options.color)):
        picture.save(options.folder / f"{i:02}.png")


if __name__ == "__main__":
    main()
