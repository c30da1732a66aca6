"""Lists of prompts in files: one line, row or object per image, with any setting.

prompts.txt      one prompt per line
prompts.jsonl    one JSON object per line
prompts.csv      a header, then one row per line
prompts.parquet  needs the package pyarrow
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from .display import file_words, quote
from .errors import UsageError
from .settings import GenerateSettings, validate
from .text_files import decode

ENDINGS = (".txt", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
_ID = re.compile(r"[\w][\w.-]{0,99}")


@dataclass(frozen=True)
class PromptRow:
    """One line of a list: the complete settings of its images, or what is wrong with it.

    `id` names its files. `settings` has a seed. It is None where `error` says why.
    """

    line: int
    id: str
    settings: GenerateSettings | None = None
    error: str = ""


def read_prompts(path: Path, defaults: GenerateSettings) -> list[PromptRow]:
    """Read a list of prompts. Settings that a line does not have are those of `defaults`.

    A line without a seed gets that of `defaults`, or 0. A line that occurs again gets the next seed, so it is another
    image. Without an `id`, a line is named by its first words and a hash of its settings. So its name does not
    depend on the other lines. Raises `UsageError` for a file that is not a list. A bad line is a row with an error.
    """
    rows = list_prompts(_read_lines(path), defaults)
    if not rows:
        raise UsageError(f"{path} has no prompts", "write one prompt per line")
    return rows


def list_prompts(lines: Iterable[tuple[int, Mapping[str, Any] | str]], defaults: GenerateSettings) -> list[PromptRow]:
    """Make rows of numbered lines, each with its settings or a sentence that says what is wrong with it."""
    values = defaults.model_dump(exclude_unset=True)
    rows: list[PromptRow] = []
    seen: dict[str, int] = {}
    ids: dict[str, int] = {}
    for line, own in lines:
        row = _make_row(line, own, values, seen)
        if row.id in ids and not row.error:
            row = PromptRow(line, f"line-{line}", error=f"the id {quote(row.id)} is that of line {ids[row.id]} too")
        ids.setdefault(row.id, line)
        rows.append(row)
    return rows


def _make_row(line: int, own: Mapping[str, Any] | str, defaults: Mapping[str, Any], seen: dict[str, int]) -> PromptRow:
    """Check one line. `seen` counts the lines with the same settings so far."""
    if isinstance(own, str):
        return PromptRow(line, f"line-{line}", error=own)
    own = dict(own)
    given = own.pop("id", None)
    if given is not None and not _ID.fullmatch(str(given)):
        message = f"the id {quote(str(given))} should be letters, digits, points and dashes, at most 100"
        return PromptRow(line, f"line-{line}", error=message)
    try:
        settings = validate(GenerateSettings, {**defaults, **own})
        if not settings.prompt.strip():
            raise UsageError("the prompt is empty")
    except UsageError as error:
        return PromptRow(line, f"line-{line}", error=error.message.replace("`", ""))
    # what is not a default today may be one tomorrow, and names should not change
    identity = json.dumps(settings.model_dump(mode="json", exclude_defaults=True), sort_keys=True, ensure_ascii=False)
    sha256 = hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()
    repeat = seen.get(sha256, 0)
    seen[sha256] = repeat + 1
    seed = (settings.seed or 0) + repeat * settings.images
    again = f"-{repeat + 1}" if repeat else ""
    name = str(given) if given is not None else f"{file_words(settings.prompt) or 'image'}-{sha256[:10]}{again}"
    return PromptRow(line, name, settings.model_copy(update={"seed": seed}))


# --- files -----------------------------------------------------------------------------------


def _read_lines(path: Path) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    """Yield each line's number with its settings, or with a sentence that says what is wrong with it."""
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise UsageError(f"{path} is not a list of prompts by its ending", f"use one of {', '.join(ENDINGS)}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"cannot read {path}: {error.strerror or error}", "give a file with one prompt per line"
        ) from None
    if ending == ".parquet":
        yield from _read_parquet(path)
        return
    text = decode(data, str(path))
    if ending in (".csv", ".tsv"):
        yield from _read_csv(path, text, "\t" if ending == ".tsv" else ",")
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip() and not (ending == ".txt" and line.lstrip().startswith("#")):
            yield number, {"prompt": line.strip()} if ending == ".txt" else _parse_object(line)


def _parse_object(line: str) -> Mapping[str, Any] | str:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"is not JSON: {str(error)[:80]}"
    if not isinstance(content, dict):
        return f"is JSON, but not an object: {quote(line[:40])}"
    return {key: value for key, value in content.items() if value is not None}


def _read_csv(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter)
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_columns(path, header)
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, _name_cells(header, cells)
    except csv.Error as error:
        raise UsageError(f"{path} is not a table: line {reader.line_num}: {error}", "save it as CSV again") from None


def _name_cells(header: list[str], cells: list[str]) -> Mapping[str, Any] | str:
    if len(cells) > len(header):
        return f"has {len(cells)} cells, expected {len(header)}; quote a prompt that has commas"
    return {name: cell.strip() for name, cell in zip(header, cells, strict=False) if cell.strip()}


def _check_columns(path: Path, header: list[str]) -> None:
    known = {"id", *GenerateSettings.model_fields}
    if "prompt" not in header:
        raise UsageError(f"{path} has no column `prompt`", "its first line names the columns, like prompt,seed,steps")
    if unknown := [name for name in header if name not in known]:
        raise UsageError(f"{path} has the unknown column {quote(unknown[0])}", f"columns: {', '.join(sorted(known))}")


def _read_parquet(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        from pyarrow import ArrowException, parquet  # type: ignore[import-not-found]
    except ImportError:
        raise UsageError(f"{path} needs the package pyarrow", "pip install pyarrow, or use .jsonl or .csv") from None
    try:
        table = parquet.read_table(path)
    except (ArrowException, OSError) as error:
        raise UsageError(f"{path} is not a Parquet file: {str(error)[:100]}", "write it again") from None
    _check_columns(path, table.column_names)
    for number, row in enumerate(table.to_pylist(), 1):
        yield number, {key: value for key, value in row.items() if value is not None}
