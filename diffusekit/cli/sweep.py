"""`diffusekit generate --sweep`: one image for each combination of values, and a labeled sheet of them."""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BatchIncomplete, UsageError
from ..settings import GenerateSettings, validate
from ..workspace import Workspace
from .output import ENDINGS
from .progress import progress_bar, quiet_libraries

if TYPE_CHECKING:
    from ..batch import ImageBatch
    from ..visualise.xyz_grid import Axis, GridCell

log = logging.getLogger(__name__)

MAX_IMAGES = 1000
SHEET = "sheet"


@dataclass(frozen=True)
class SweepOutput:
    """Where the files of a sweep go, and what is printed."""

    output: str | None
    format: str | None
    overwrite: bool
    no_metadata: bool
    as_json: bool
    quiet: bool


def run_sweep(settings: GenerateSettings, prompt: str, sweeps: Sequence[str], options: SweepOutput) -> None:
    """Make the images of up to three sweeps and their sheet. Images that are there already are kept.

    The first sweep goes across, the second down, and the third makes one block for each value.
    """
    from ..batch import ImageBatch
    from ..prompt_list import list_prompts
    from ..visualise.xyz_grid import grid_cells, parse_sweep

    if len(sweeps) > 3:
        raise UsageError(f"{len(sweeps)} sweeps were given, the maximum is 3", "leave out some of them")
    if settings.images > 1:
        raise UsageError("a sweep makes one image of each combination", "leave out --images, or sweep the seed")
    axes = [parse_sweep(text, limit=MAX_IMAGES) for text in sweeps]
    base = settings.model_dump(exclude_unset=True) | {"prompt": prompt, "seed": settings.seed or 0}
    cells = grid_cells([*axes, *[None] * (3 - len(axes))], base, limit=MAX_IMAGES)
    rows = list_prompts(((i + 1, cell.settings) for i, cell in enumerate(cells)), validate(GenerateSettings, {}))
    if wrong := next((row.error for row in rows if row.error), ""):
        raise UsageError(f"a combination of the sweep cannot be used: {wrong}", "leave out one of its values")
    ending = ENDINGS[options.format or "png"]
    batch = ImageBatch(rows, _folder(options, base, sweeps), ending=ending, overwrite=options.overwrite)
    failed = _make(batch, options)
    sheet = _save_sheet(batch, cells, axes, base)
    if options.as_json:
        paths = {row.id: str(batch.paths(row)[0]) for row in rows}
        print(json.dumps({"sheet": str(sheet or ""), "pictures": list(paths.values())}, ensure_ascii=False))
    elif sheet:
        print(sheet)
    if failed:
        raise BatchIncomplete(
            f"{failed} of {len(rows)} images failed", f"{batch.folder}/manifest.jsonl has the reasons"
        )


def _folder(options: SweepOutput, base: dict[str, Any], sweeps: Sequence[str]) -> Path:
    """Return the folder of the sweep; the same command has the same one, on the same day."""
    if options.no_metadata:
        raise UsageError("a sweep finds its finished images by their metadata", "leave out --no-metadata")
    if options.format is not None and options.format not in ENDINGS:
        raise UsageError(f"unknown image format {options.format!r}", f"formats: {', '.join(ENDINGS)}")
    if options.output is None:
        digest = hashlib.sha256(json.dumps([base, list(sweeps)], sort_keys=True, default=str).encode()).hexdigest()
        return Workspace().outputs / date.today().isoformat() / f"sweep-{digest[:10]}"
    folder = Path(options.output)
    if folder.is_file() or (folder.suffix.lower() in ENDINGS.values() and not options.output.endswith("/")):
        raise UsageError(f"a sweep writes several files, got --output {options.output}", "give a folder")
    return folder


def _make(batch: "ImageBatch", options: SweepOutput) -> int:
    """Make the images under a progress bar; return how many failed."""
    failed = 0
    with quiet_libraries(), progress_bar(show=not options.quiet) as bar:
        task = bar.add_task("images", total=batch.total, note="")
        for outcome in batch:
            if outcome is not None:
                bar.update(task, advance=1)
                if outcome.status == "failed":
                    failed += 1
                    log.warning("%s", outcome.error)
                elif not options.as_json:
                    print(batch.folder / outcome.files[0], flush=True)
    return failed


def _save_sheet(
    batch: "ImageBatch", cells: Sequence["GridCell"], axes: "Sequence[Axis]", base: dict[str, Any]
) -> Path | None:
    """Write the sheet of the images that are there, with the axes in its record."""
    from PIL import Image

    from .. import metadata
    from ..visualise.xyz_grid import render_sheet, sheet_record

    paths = {(c.x, c.y, c.z): batch.paths(row)[0] for c, row in zip(cells, batch.rows, strict=True)}
    there = {place: Image.open(path) for place, path in paths.items() if path.exists()}
    if not there:
        return None
    record = metadata.read(next(path for path in paths.values() if path.exists())).record
    assert record is not None, "every image of a batch has its record"
    whole = [*axes, *[None] * (3 - len(axes))]
    return metadata.save(
        render_sheet(whole, there),
        batch.folder / f"{SHEET}{next(iter(paths.values())).suffix}",
        sheet_record(record, whole, base),
        overwrite=True,
    )
