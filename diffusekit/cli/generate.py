"""`diffusekit generate`: prompts to picture files."""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..config import resolve_settings
from ..errors import UsageError
from ..settings import GenerateSettings, validate
from .options import with_group, with_settings
from .output import Destination
from .progress import follow, quiet_libraries

if TYPE_CHECKING:
    from ..pipeline import GeneratedImage


@dataclass(frozen=True)
class Manner:
    """Where pictures go and what is told of them: the flags of every verb that makes some."""

    size: Annotated[
        str | None,
        typer.Option("--size", metavar="WxH", help="Width and height in one, like 512x512."),
    ] = None
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="A file, or a folder (ends in /). Default: outputs/ and the date.",
        ),
    ] = None
    format: Annotated[str | None, typer.Option("--format", help="png, jpeg or webp; default png.")] = None
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write over a file of the same name.")] = False
    no_metadata: Annotated[
        bool,
        typer.Option("--no-metadata", help="Do not write into the picture how it was made."),
    ] = False
    no_label: Annotated[bool, typer.Option("--no-label", help="With --no-metadata: not even that a model made it.")] = (
        False
    )
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout instead of paths.")] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False

    def destination(self, count: int) -> Destination:
        """Where `count` pictures go; refuses what cannot be written, before any work."""
        return Destination(self.output, self.format, count, overwrite=self.overwrite)


@with_group(Manner, "manner")
@with_settings(GenerateSettings, "prompt")
def command(
    settings: dict[str, Any],
    manner: Manner,
    prompts: Annotated[
        list[str] | None,
        typer.Argument(metavar="PROMPT...", help="What to draw; - reads lines from stdin.", show_default=False),
    ] = None,
    prompts_file: Annotated[
        Path | None,
        typer.Option("--prompts", metavar="FILE", help="A text file with a prompt on every line."),
    ] = None,
) -> None:
    """Make pictures of prompts: diffusekit generate "A beautiful galaxy"."""
    given = settings | split_size(manner.size, settings)
    resolved = resolve_settings(GenerateSettings, "generate", given)
    wanted = _prompts(prompts or [], prompts_file)
    for prompt in wanted:
        validate(GenerateSettings, {"prompt": prompt})
    run(resolved, wanted, manner)


def split_size(size: str | None, given: dict[str, Any]) -> dict[str, int]:
    """`--size 512x768` as width and height."""
    if size is None:
        return {}
    width, cross, height = size.lower().partition("x")
    if not (cross and width.isdigit() and height.isdigit()):
        raise UsageError(f"the size is given as WIDTHxHEIGHT, got {size!r}", "for example --size 512x768")
    if "width" in given or "height" in given:
        raise UsageError("--size and --width or --height were both given", "leave one of them out")
    return {"width": int(width), "height": int(height)}


def _prompts(given: Sequence[str], file: Path | None) -> list[str]:
    """Prompts from arguments, stdin (-) and a file, empty lines skipped."""
    found: list[str] = []
    for prompt in given:
        found += _lines(sys.stdin.read()) if prompt == "-" else [prompt]
    if file is not None:
        try:
            found += _lines(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"cannot read {file}: {getattr(error, 'strerror', None) or 'it is not UTF-8 text'}",
                "one prompt a line",
            ) from None
    if not found:
        raise UsageError("there is no prompt", 'diffusekit generate "A beautiful galaxy"')
    return found


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def run(settings: GenerateSettings, prompts: list[str], manner: Manner) -> None:
    """Make and save pictures, each as soon as it is finished; prints paths, or one JSON object."""
    destination = manner.destination(len(prompts) * settings.images)
    started = time.perf_counter()
    rows: list[dict[str, Any]] = []
    with quiet_libraries():
        from ..pipeline import Generation

        running = Generation(settings, prompts)
        for _ in follow(running, show=not manner.quiet):
            for picture in running.images[len(rows) :]:
                rows.append(_save(picture, destination, manner))
                if not manner.as_json:
                    print(rows[-1]["path"], flush=True)
    if manner.as_json:
        print(
            json.dumps(
                {"pictures": rows, "seconds": round(time.perf_counter() - started, 3)},
                ensure_ascii=False,
            )
        )


def _save(picture: "GeneratedImage", destination: Destination, manner: Manner) -> dict[str, Any]:
    from .. import metadata

    settings = picture.record.settings
    path = destination.next(settings.prompt, settings.seed or 0)
    metadata.save(
        picture.image,
        path,
        None if manner.no_metadata else picture.record,
        label=not (manner.no_metadata and manner.no_label),
        overwrite=manner.overwrite,
    )
    return {"path": str(path), "prompt": settings.prompt, "seed": settings.seed}
