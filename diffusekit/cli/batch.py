"""`diffusekit batch`: a list of prompts to a folder of images."""

import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..config import resolve_settings
from ..errors import BatchIncomplete, UsageError
from ..settings import GenerateSettings
from .options import with_group, with_settings
from .output import ENDINGS
from .progress import progress_bar, quiet_libraries

if TYPE_CHECKING:
    from ..batch import ImageBatch, Outcome

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BatchOptions:
    """The flags of `batch` beside the settings of images."""

    format: Annotated[str, typer.Option("--format", help="File format: png, jpeg or webp.")] = "png"
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make every image again.")] = False
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be made.")] = False
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line of the list.")] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress bar.")] = False


@with_group(BatchOptions, "options")
@with_settings(GenerateSettings, "prompt")
def command(
    settings: dict[str, Any],
    options: BatchOptions,
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="List: .txt, .jsonl, .csv, .tsv or .parquet.", show_default=False),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the images.")],
) -> None:
    """Generate the images of a list of prompts into a folder.

    A line of the list may have any setting: a JSON object per line, or a table whose columns are settings. Flags are
    the defaults of all lines. Run the same command again to make what is missing. DIR/manifest.jsonl says what became
    of each line.

    Example: diffusekit batch prompts.txt -o images --steps 30
    """
    from ..batch import ImageBatch
    from ..prompt_list import read_prompts

    if options.format not in ENDINGS:
        raise UsageError(f"unknown image format {options.format!r}", f"formats: {', '.join(ENDINGS)}")
    rows = read_prompts(file, resolve_settings(GenerateSettings, "generate", settings))
    batch = ImageBatch(rows, output, ending=ENDINGS[options.format], overwrite=options.overwrite)
    if options.dry_run:
        _print_plan(batch, as_json=options.as_json)
    else:
        _run(batch, options)


def _run(batch: "ImageBatch", options: BatchOptions) -> None:
    started = time.perf_counter()
    counts = {"made": 0, "kept": 0, "failed": 0}
    with quiet_libraries(), progress_bar(show=not options.quiet) as bar:
        task = bar.add_task("lines", total=batch.total, note="")
        for outcome in batch:
            if outcome is not None:
                counts[outcome.status] += 1
                _report(outcome, as_json=options.as_json)
                rate = counts["made"] / (time.perf_counter() - started)
                bar.update(task, advance=1, note=f"{rate * 60:.1f} lines/min" if counts["made"] else "")
    if not options.as_json:
        print(f"{batch.folder}: {_sum_up(counts)}")
    if counts["failed"]:
        raise BatchIncomplete(
            f"{counts['failed']} of {batch.total} lines failed", f"{batch.folder}/manifest.jsonl has the reason of each"
        )


def _report(outcome: "Outcome", *, as_json: bool) -> None:
    if as_json:
        from dataclasses import asdict

        print(json.dumps(asdict(outcome), ensure_ascii=False), flush=True)
    elif outcome.status == "failed":
        log.warning("line %d: %s", outcome.line, outcome.error)


def _print_plan(batch: "ImageBatch", *, as_json: bool) -> None:
    """Say what a run would do, without loading anything."""
    from ..batch import count_images

    known = {row.id: batch.check(row) for row in batch.rows}
    counts = {"made": 0, "kept": 0, "failed": 0}
    for outcome in known.values():
        counts[outcome.status if outcome else "made"] += 1
        if outcome and outcome.status == "failed":
            _report(outcome, as_json=False)
    images = count_images([row for row in batch.rows if known[row.id] is None])
    if as_json:
        print(json.dumps({"to_make": counts["made"], "images": images, **{k: counts[k] for k in ("kept", "failed")}}))
    else:
        print(f"{counts['made']} lines to make ({images} images), {counts['kept']} kept, {counts['failed']} failed")


def _sum_up(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {status}" for status, count in counts.items() if count)
