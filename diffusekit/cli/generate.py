"""`diffusekit generate`: prompts to image files."""

import json
import logging
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..config import resolve_settings
from ..errors import ImagesFlagged, UsageError
from ..settings import GenerateSettings, validate
from ..text_files import decode, repair
from .options import with_group, with_settings
from .output import Destination
from .progress import follow, quiet_libraries
from .streams import read_stdin
from .sweep import SweepOutput, run_sweep

if TYPE_CHECKING:
    from ..pipeline import GeneratedImage, Generation

log = logging.getLogger(__name__)


StartImagePath = Annotated[
    Path | None, typer.Option("--image", metavar="FILE", help="Start from this image; see --strength.")
]
MaskPath = Annotated[
    Path | None,
    typer.Option("--mask", metavar="FILE", help="Paint only where this image is white; all else stays as in --image."),
]


SweepAxes = Annotated[
    list[str] | None,
    typer.Option(
        "--sweep",
        metavar="SETTING=VALUES",
        help="One image for each value, and a labeled sheet: steps=10,20 or prompt:red=blue,green. "
        "Can be given up to three times.",
    ),
]


@dataclass(frozen=True)
class OutputOptions:
    """The flags of every verb that generates images: size, destination, metadata, what is printed."""

    size: Annotated[
        str | None,
        typer.Option("--size", metavar="WxH", help="Width and height together, like 512x512."),
    ] = None
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="Output file, or folder (ends in /). Default: outputs/DATE/."),
    ] = None
    format: Annotated[str | None, typer.Option("--format", help="File format: png, jpeg or webp. Default: png.")] = None
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False
    no_metadata: Annotated[bool, typer.Option("--no-metadata", help="Do not store the settings in the image file.")] = (
        False
    )
    no_label: Annotated[
        bool, typer.Option("--no-label", help="With --no-metadata: also omit the label of AI-generated images.")
    ] = False
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of paths.")] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress bar.")] = False

    def destination(self, count: int) -> Destination:
        """Return where `count` images are written. Raises `UsageError`, before any work, if that is not possible."""
        if self.no_label and not self.no_metadata:
            log.warning("`no_label` has no effect without `no_metadata`: the label is part of the settings")
        return Destination(self.output, self.format, count, overwrite=self.overwrite)


@with_group(OutputOptions, "options")
@with_settings(GenerateSettings, "prompt")
def command(
    settings: dict[str, Any],
    options: OutputOptions,
    prompts: Annotated[
        list[str] | None,
        typer.Argument(metavar="PROMPT", help="What the image shows; - reads prompts from stdin.", show_default=False),
    ] = None,
    prompts_file: Annotated[
        Path | None,
        typer.Option("--prompts", metavar="FILE", help="Text file with one prompt per line."),
    ] = None,
    image: StartImagePath = None,
    mask: MaskPath = None,
    sweep: SweepAxes = None,
) -> None:
    """Generate images from prompts.

    Example: diffusekit generate "A beautiful galaxy"
    """
    given = settings | split_size(options.size, settings)
    resolved = resolve_settings(GenerateSettings, "generate", given)
    texts = _read_prompts(prompts or [], prompts_file)
    if not (prompts or prompts_file):
        texts = [resolved.prompt] if resolved.prompt.strip() else []
    if not texts:
        raise UsageError("no prompt was given", 'for example: diffusekit generate "A beautiful galaxy"')
    for prompt in texts:
        validate(GenerateSettings, {"prompt": prompt})
    if sweep:
        _check_sweep(texts, image or mask)
        shared = {field.name: getattr(options, field.name) for field in fields(SweepOutput)}
        run_sweep(resolved, texts[0], sweep, SweepOutput(**shared))
    else:
        run(resolved, texts, options, image, mask)


def _check_sweep(prompts: list[str], image: Path | None) -> None:
    """Refuse what a sweep does not take."""
    if len(prompts) > 1:
        raise UsageError(f"a sweep takes one prompt, got {len(prompts)}", "sweep words: --sweep prompt:red=blue,green")
    if image is not None:
        raise UsageError("a sweep does not take a start image", "leave out --image or --sweep")


def split_size(size: str | None, given: dict[str, Any]) -> dict[str, int]:
    """Parse `--size 512x768` into width and height. `given` are the settings that were given beside it."""
    if size is None:
        return {}
    width, _, height = size.lower().partition("x")
    if not re.fullmatch(r"[0-9]{1,9}x[0-9]{1,9}", size.lower()):
        raise UsageError(f"--size should be WIDTHxHEIGHT, got {size!r}", "for example --size 512x768")
    if "width" in given or "height" in given:
        raise UsageError("--size was given together with --width or --height", "leave out one of them")
    return {"width": int(width), "height": int(height)}


def _read_prompts(given: Sequence[str], file: Path | None) -> list[str]:
    """Collect prompts from arguments, stdin (-) and a file. Empty lines are skipped."""
    prompts: list[str] = []
    for prompt in given:
        prompts += _lines(read_stdin()) if prompt == "-" else [repair(prompt)]
    if file is not None:
        try:
            prompts += _lines(decode(file.read_bytes(), str(file)))
        except OSError as error:
            raise UsageError(
                f"cannot read {file}: {error.strerror or error}", "expected a text file with one prompt per line"
            ) from None
    return prompts


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def run(
    settings: GenerateSettings,
    prompts: list[str],
    options: OutputOptions,
    image: Path | None = None,
    mask: Path | None = None,
) -> None:
    """Generate images and save each as soon as it is finished. Prints the paths, or one JSON object.

    Raises `ImagesFlagged` at the end, when the others are saved.
    `image` is the start image, and `mask` says what of it is painted.
    """
    if mask is not None and image is None:
        raise UsageError("a mask says what of an image is painted, and there is none", "give it with `image`")
    destination = options.destination(len(prompts) * settings.images)
    started = time.perf_counter()
    rows: list[dict[str, Any]] = []
    with quiet_libraries():
        from ..mask import Mask
        from ..pipeline import Generation
        from ..start_image import StartImage

        start, painted = StartImage.open(image) if image else None, Mask.open(mask) if mask else None
        generation = Generation(settings, prompts, image=start, mask=painted)
        if not (options.quiet or options.as_json):
            _print_loras(generation)
        for _ in follow(generation, show=not options.quiet):
            for made in generation.images[len(rows) :]:
                rows.append(_save(made, destination, options))
                if not options.as_json:
                    print(rows[-1]["path"], flush=True)
    if options.as_json:
        seconds = round(time.perf_counter() - started, 3)
        flagged = [
            {"prompt": r.settings.prompt, "seed": r.settings.seed} for r in (i.record for i in generation.flagged)
        ]
        found = {"pictures": rows, "flagged": flagged, "seconds": seconds} | _describe_loras(generation)
        print(json.dumps(found, ensure_ascii=False))
    if generation.flagged:
        raise ImagesFlagged(len(generation.flagged), len(generation.finished))


def _print_loras(generation: "Generation") -> None:
    """Say on stderr what was found of each LoRA file. Warnings say what was not."""
    for match in generation.loras.matches:
        if not match.unmatched:
            print(match, file=sys.stderr)


def _describe_loras(generation: "Generation") -> dict[str, Any]:
    loras = [{"name": m.name, "matched": m.matched, "layers": m.total} for m in generation.loras.matches]
    return {"loras": loras} if loras else {}


def _save(image: "GeneratedImage", destination: Destination, options: OutputOptions) -> dict[str, Any]:
    from .. import metadata

    settings = image.record.settings
    path = destination.next(settings.prompt, settings.seed or 0)
    metadata.save(
        image.image,
        path,
        None if options.no_metadata else image.record,
        label=not (options.no_metadata and options.no_label),
        is_composite=bool(image.record.start_image),
        overwrite=options.overwrite,
    )
    return {"path": str(path), "prompt": settings.prompt, "seed": settings.seed}
