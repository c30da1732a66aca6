"""What all visualisers have in common on the command line: where the result is written, and the progress bar."""

import json
import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...workspace import Workspace
from ..progress import StepSource, follow

if TYPE_CHECKING:
    from ...visualise import Visualization

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress bar.")]


@dataclass(frozen=True)
class FigureOptions:
    """Where a visualization is written: the flags of every visualiser."""

    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Output file. The ending selects the format. Default: a dated name in outputs/.",
        ),
    ] = None
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Overwrite an existing file.")] = False
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as one JSON object.")] = False

    def check(self, *endings: str) -> None:
        """Refuse, before any work, a file that exists or whose ending is neither in `endings` nor .json."""
        from ...visualise.figure import check_path

        if self.output is not None:
            check_path(Path(self.output), (*endings, ".json"), overwrite=self.overwrite)

    def write(self, visualization: "Visualization", verb: str) -> None:
        """Save a visualization and print its path. With --json print its numbers, and save only if asked to."""
        path = None
        if self.output is not None or not self.as_json:
            path = self.output or _next_name(verb, visualization.endings[0])
            path = visualization.save(path, overwrite=self.overwrite)
        print(json.dumps(visualization.numbers, ensure_ascii=False, allow_nan=False) if self.as_json else path)


def run_recorder(recorder: StepSource, *, show: bool) -> None:
    """Run a recorder to its end, with a progress bar when `show` is set and stderr is a terminal."""
    for _ in follow(recorder, show=show):
        pass


def _next_name(verb: str, ending: str) -> Path:
    """The next free name of today, for example outputs/2026-01-31/denoise-00001.png."""
    folder = Workspace().outputs / date.today().isoformat()
    matches = (re.match(rf"{verb}-(\d+)\.", p.name) for p in folder.glob(f"{verb}-*"))
    number = 1 + max((int(m[1]) for m in matches if m), default=0)
    return folder / f"{verb}-{number:05}{ending}"
