"""What the visualiser's verbs share: their flags, the bar, and where an exhibit is written."""

import json
import re
from dataclasses import dataclass
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...errors import UsageError
from ...workspace import Workspace
from ..progress import follow

if TYPE_CHECKING:
    from ...visualise import TraceRecorder, Visualization
    from ...visualise.attention_maps import AttentionMapRecorder

STILL = (".png", ".jpg", ".jpeg")
FILM = (".webp", ".apng", ".gif", ".mp4")
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")]


@dataclass(frozen=True)
class FigureOptions:
    """Where an exhibit goes: the flags of every verb here."""

    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The ending chooses what is made; default: a dated name in outputs/.",
        ),
    ] = None
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write over a file of the same name.")] = False
    as_json: Annotated[bool, typer.Option("--json", help="The numbers as one JSON object on stdout.")] = False

    def check(self, *endings: str) -> None:
        """Refuse, before any work, a file that is there or whose ending is not among `endings` or .json."""
        if self.output is None:
            return
        path, endings = Path(self.output), (*endings, ".json")
        if path.suffix.lower() not in endings:
            raise UsageError(f"{path.name!r} is not a kind of file this can be", f"endings: {', '.join(endings)}")
        if path.exists() and not self.overwrite:
            raise UsageError(f"{path} already exists", "choose another name, or say --overwrite")
        if path.suffix.lower() == ".mp4" and find_spec("imageio_ffmpeg") is None:
            raise UsageError(
                "an MP4 needs imageio-ffmpeg, which is not installed",
                "pip install imageio-ffmpeg, or take .webp",
            )

    def write(self, exhibit: "Visualization", verb: str) -> None:
        """Save an exhibit and print its path; with --json print its numbers, and save only if asked to."""
        path = None
        if self.output is not None or not self.as_json:
            path = exhibit.save(self.output or _named(verb, exhibit.endings[0]), overwrite=self.overwrite)
        if self.as_json:
            print(json.dumps(exhibit.numbers, ensure_ascii=False, allow_nan=False))
        else:
            print(path)


def run_recorder(recording: "TraceRecorder | AttentionMapRecorder", *, show: bool) -> None:
    """Run a recording to its end, under a bar when `show` and stderr is a terminal."""
    for _ in follow(recording, show=show):
        pass


def _named(verb: str, ending: str) -> Path:
    """The next free name of today's: outputs/2026-01-31/denoise-00001.png."""
    folder = Workspace().outputs / date.today().isoformat()
    taken = (re.match(rf"{verb}-(\d+)\.", p.name) for p in folder.glob(f"{verb}-*"))
    number = 1 + max((int(m[1]) for m in taken if m), default=0)
    return folder / f"{verb}-{number:05}{ending}"
