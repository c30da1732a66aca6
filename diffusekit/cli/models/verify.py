"""`diffusekit models verify`: compare the files of a model with their hashes."""

import json
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ...display import printable
from ...errors import ModelError, UsageError
from .options import Json, Name


def command(
    name: Name,
    sha256: Annotated[
        str | None,
        typer.Option("--sha256", metavar="HASH", help="The SHA-256 of one file, or its first 10 or more digits."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare the files of a model with their hashes.

    Every file is read, and its SHA-256 is compared with the hub's, or with the one given. The hub's hashes are in
    its cache, so no network is needed. Web pages with downloads often show the SHA-256 of a file, or its first 10
    digits. The exit code is 8 when a file differs.
    """
    from ... import model_catalog

    entry = model_catalog.describe(name)
    path = entry.description.path
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{10,64}", sha256):
        raise UsageError(f"`sha256` should have 10 to 64 hexadecimal digits, got {sha256[:70]!r}", "copy it again")
    if sha256 is not None and path.is_dir():
        raise UsageError(f"{name} is a folder, and `sha256` is the hash of one file", "leave it out")
    rows = _check_folder(entry.revision, entry.name, path) if path.is_dir() else [_check_file(path, sha256)]
    if as_json:
        print(json.dumps({"files": rows, "ok": all(row["ok"] is not False for row in rows)}))
    else:
        for row in rows:
            state = {True: "ok     ", False: "DIFFERS", None: "no hash"}[row["ok"]]
            print(printable(f"{state}  {row['sha256']:<64}  {row['file']}"))
    bad = [row["file"] for row in rows if row["ok"] is False]
    if bad:
        again = f"diffusekit models remove {entry.name}, then pull it again" if entry.revision else "fetch it again"
        raise ModelError(f"{bad[0]}{f' and {len(bad) - 1} more' if len(bad) > 1 else ''} differs from its hash", again)
    if any(row["ok"] is None for row in rows) and not as_json:
        print("files without a hash to compare with were only read; see --sha256", file=sys.stderr)
    if entry.description.kind in ("model", ""):
        entry.description.check()


def _check_file(path: Path, sha256: str | None) -> dict[str, Any]:
    """Hash one file, and compare it with the hash that was given."""
    from ...file_hashes import compute_sha256

    found = compute_sha256(path)
    is_good = found.startswith(sha256.lower()) if sha256 else None
    return {"file": path.name, "sha256": found, "expected": (sha256 or "").lower(), "ok": is_good}


def _check_folder(revision: str, name: str, path: Path) -> list[dict[str, Any]]:
    from ... import hub_cache

    checks = hub_cache.check_files(path, {})
    if revision and any(not check.is_known for check in checks):
        checks = hub_cache.check_files(path, _ask_hub(name, revision))
    return [
        {
            "file": check.name,
            "sha256": check.found,
            "expected": check.expected,
            "ok": check.is_good if check.is_known else None,
        }
        for check in checks
    ]


def _ask_hub(name: str, revision: str) -> dict[str, str]:
    """Ask the hub for the hashes of a revision, where the cache does not have them."""
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        return {}
    try:
        info = HfApi().model_info(name.partition("@")[0], revision=revision, files_metadata=True)
    except Exception as error:  # every reason has its own type
        print(f"warning: the hub was not asked for hashes: {type(error).__name__}", file=sys.stderr)
        return {}
    rows = info.siblings or []
    return {row.rfilename: row.lfs.sha256 if row.lfs else row.blob_id or "" for row in rows}
