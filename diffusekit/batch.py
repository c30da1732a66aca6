"""Thousands of images from a list of prompts: grouped by model and shape, resumable, one bad line at a time.

DIR/a-red-cat-1f0c3a9be2.png    an image, named by its line's first words and a hash of its settings
DIR/manifest.jsonl              one JSON object per line of the list: what became of it
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from . import atomic, hub, metadata
from .errors import DiffusekitError, DiskError, FileRefused, ImagesFlagged, ModelError, UsageError
from .prompt_list import PromptRow
from .settings import GenerateSettings

MANIFEST = "manifest.jsonl"
_CHUNK = 64  # images in memory at once
_OF_AN_IMAGE = {"prompt", "seed", "images"}  # settings that may differ within one run of the pipeline
_NOT_IN_IMAGE = {"images", "batch", "device", "dtype", "attention", "memory", "embedding", "model"}


@dataclass(frozen=True)
class Outcome:
    """What became of a line of the list: its images were `made`, were there already (`kept`), or it `failed`."""

    id: str
    line: int
    status: Literal["made", "kept", "failed"]
    files: tuple[str, ...] = ()
    seconds: float = 0.0
    error: str = ""
    warnings: tuple[str, ...] = ()


class ImageBatch:
    """The images of a list of prompts, in one folder.

    Iterate to make them. It yields an `Outcome` for each line when its images are on the disk, and None after every
    step that finishes no line. Stop iterating to cancel. A new one of the same list makes what is missing.
    """

    def __init__(self, rows: Sequence[PromptRow], folder: Path, *, ending: str = ".png", overwrite: bool = False):
        """`ending` is .png, .jpg or .webp. Images with other settings are only replaced with `overwrite`."""
        self.rows, self.folder = list(rows), folder
        self._ending, self._overwrite = ending, overwrite
        self._manifest: dict[str, Outcome] = {}

    @property
    def total(self) -> int:
        """How many lines there are."""
        return len(self.rows)

    def check(self, row: PromptRow) -> Outcome | None:
        """Return what is known about a line before anything is made: it is wrong, or its images are there."""
        if row.settings is None:
            return Outcome(row.id, row.line, "failed", error=row.error)
        paths = self.paths(row)
        there = [path for path in paths if path.exists()]
        if self._overwrite or not there:
            return None
        other = next((path for i, path in enumerate(paths) if path in there and not _has_record(path, row, i)), None)
        if other is not None:
            error = f"{other.name} is there with other settings; remove it, or use `overwrite`"
            return Outcome(row.id, row.line, "failed", error=error)
        return Outcome(row.id, row.line, "kept", tuple(p.name for p in paths)) if len(there) == len(paths) else None

    def paths(self, row: PromptRow) -> list[Path]:
        """Return the files of a line, one for each of its images."""
        assert row.settings is not None
        count = row.settings.images
        names = [row.id] if count == 1 else [f"{row.id}-{i + 1:0{len(str(count))}}" for i in range(count)]
        return [self.folder / f"{name}{self._ending}" for name in names]

    def __iter__(self) -> Generator[Outcome | None, None, None]:
        atomic.check_destination(self.folder / MANIFEST)
        with self._lock(), ThreadPoolExecutor(2) as writers:
            todo = []
            for row in self.rows:
                if outcome := self.check(row):
                    yield self._note(outcome)
                else:
                    todo.append(row)
            for group in _group(todo):
                yield from self._make_all(group, writers)
            self._write_manifest()

    def _make_all(self, rows: list[PromptRow], writers: ThreadPoolExecutor) -> Iterator[Outcome | None]:
        """Make the images of lines of one group. When something fails, the lines that are left are made one by one."""
        left = {row.id: row for row in rows}
        try:
            for outcome in self._make(rows, writers):
                if outcome is not None:
                    del left[outcome.id]
                yield outcome
        except DiskError:
            raise
        except DiffusekitError as error:
            for row in left.values():
                if len(rows) > 1 and not isinstance(error, ModelError):
                    yield from self._make_all([row], writers)
                else:
                    yield self._note(Outcome(row.id, row.line, "failed", error=error.message))

    def _make(self, rows: Sequence[PromptRow], writers: ThreadPoolExecutor) -> Iterator[Outcome | None]:
        """Run the pipeline once, and write images while it goes on."""
        from .pipeline import Generation

        images = [(row, index) for row in rows for index in range(_settings(row).images)]
        prompts, seeds = [_settings(row).prompt for row, _ in images], [_seed(row) + i for row, i in images]
        shared = _settings(rows[0]).model_copy(update={"images": 1, "prompt": "", "seed": 0})
        started = time.perf_counter()
        generation = Generation(shared, prompts, seeds=seeds)
        written: list[Future[Any]] = []
        finished = 0
        for _ in self._to_the_end(generation):
            for made in generation.finished[len(written) :]:
                row, index = images[len(written)]
                written.append(writers.submit(self._save, made, self.paths(row)[index]))
            while finished < len(rows) and (last := _last_of(rows, finished)) <= len(written):
                row = rows[finished]
                saved = [future.result() for future in written[last - _settings(row).images : last]]
                names = tuple(path.name for path, is_saved in zip(self.paths(row), saved, strict=True) if is_saved)
                seconds = round(time.perf_counter() - started, 3)
                flagged = saved.count(False)
                error = ImagesFlagged(flagged, len(saved)).message if flagged else ""
                status: Literal["made", "failed"] = "failed" if flagged else "made"
                warnings = tuple(generation.warnings)
                yield self._note(Outcome(row.id, row.line, status, names, seconds, error, warnings))
                started, finished = time.perf_counter(), finished + 1
            yield None

    @staticmethod
    def _to_the_end(generation: Any) -> Iterator[None]:
        """Yield after every step, and once more when the last images are finished."""
        for _ in generation:
            yield
        yield

    def _save(self, made: Any, path: Path) -> bool:
        """Write an image, unless the model's safety checker flagged it; return whether it was written."""
        if not hasattr(made, "image"):
            return False
        metadata.save(made.image, path, made.record, overwrite=True)
        return True

    # --- the manifest ----------------------------------------------------------------------------

    def _note(self, outcome: Outcome) -> Outcome:
        """Append to the manifest; what was made earlier keeps its entry."""
        if outcome.status == "kept" and outcome.id in self._manifest:
            return outcome
        self._manifest[outcome.id] = outcome
        try:
            with (self.folder / MANIFEST).open("a", encoding="utf-8") as file:
                file.write(_to_json(outcome))
        except OSError as error:
            raise DiskError(f"cannot write {self.folder / MANIFEST}: {error.strerror}", "free some space") from error
        return outcome

    def _write_manifest(self) -> None:
        """Write the manifest again with one line for each id, in the order of the list."""
        order = {row.id: number for number, row in enumerate(self.rows)}
        outcomes = sorted(self._manifest.values(), key=lambda each: order.get(each.id, len(order)))
        atomic.write_atomic(self.folder / MANIFEST, "".join(map(_to_json, outcomes)).encode())

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Let one process at a time write into the folder."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / ".lock", timeout=0):
                self._manifest = {each.id: each for each in read_manifest(self.folder) if each.status != "failed"}
                yield
        except Timeout:
            raise UsageError(f"another batch writes into {self.folder}", "wait for it, or use another folder") from None


def read_manifest(folder: Path) -> list[Outcome]:
    """Read the manifest of a folder, the last line of each id. Damaged lines, as of a crash, are left out."""
    found: dict[str, Outcome] = {}
    try:
        text = (folder / MANIFEST).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    for line in text.splitlines():
        try:
            fields = json.loads(line)
            outcome = Outcome(**{**fields, "files": tuple(fields["files"]), "warnings": tuple(fields["warnings"])})
        except (ValueError, TypeError, KeyError):
            continue
        found[outcome.id] = outcome
    return list(found.values())


def count_images(rows: Sequence[PromptRow]) -> int:
    return sum(row.settings.images for row in rows if row.settings is not None)


def _to_json(outcome: Outcome) -> str:
    return json.dumps(asdict(outcome), ensure_ascii=False) + "\n"


def _settings(row: PromptRow) -> GenerateSettings:
    assert row.settings is not None
    return row.settings


def _seed(row: PromptRow) -> int:
    return _settings(row).seed or 0


def _last_of(rows: Sequence[PromptRow], number: int) -> int:
    """Return how many images must be there before the line `number` is finished."""
    return count_images(rows[: number + 1])


def _group(rows: Sequence[PromptRow]) -> Iterator[list[PromptRow]]:
    """Divide lines into groups that one run of the pipeline can make: all settings of an image's shape are equal.

    Groups of one model follow each other, so that no model is loaded twice.
    """
    groups: dict[str, list[PromptRow]] = {}
    for row in rows:
        values = _settings(row).model_dump(mode="json", exclude=_OF_AN_IMAGE)
        groups.setdefault(json.dumps(values, sort_keys=True), []).append(row)
    by_model: dict[tuple[Any, ...], list[list[PromptRow]]] = {}
    for group in groups.values():
        own = _settings(group[0])
        by_model.setdefault((own.model, own.device, own.dtype, own.fast, own.attention, own.memory), []).append(group)
    for same_model in by_model.values():
        for group in same_model:
            yield from _chunks(group)


def _chunks(rows: list[PromptRow]) -> Iterator[list[PromptRow]]:
    chunk: list[PromptRow] = []
    for row in rows:
        if chunk and count_images([*chunk, row]) > _CHUNK:
            yield chunk
            chunk = []
        chunk.append(row)
    yield chunk


def _has_record(path: Path, row: PromptRow, index: int) -> bool:
    """Whether an image was made with the settings of a line."""
    settings = _settings(row)
    try:
        record = metadata.read(path).record
    except FileRefused:
        return False
    if record is None or record.settings.seed != _seed(row) + index:
        return False
    if record.settings.model != hub.record_name(settings.model):
        return False
    wanted = settings.model_fields_set - _NOT_IN_IMAGE - {"seed"}
    if settings.guidance_scale == 0:  # recorded as 1, which is off as well
        settings = settings.model_copy(update={"guidance_scale": 1.0})
    return all(getattr(settings, name) == getattr(record.settings, name) for name in wanted)
