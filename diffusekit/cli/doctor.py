"""`diffusekit doctor`: report what is installed and check that it works."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Annotated

import typer

from ..display import format_size
from ..errors import UsageError
from .completion import complete_model

if TYPE_CHECKING:
    from ..device import Placement

_PACKAGES = (
    "diffusekit",
    "torch",
    "diffusers",
    "transformers",
    "accelerate",
    "safetensors",
    "pillow",
)


@dataclass(frozen=True)
class Finding:
    """One line of the report. `hint` says what to do when `ok` is false."""

    what: str
    says: str
    ok: bool = True
    hint: str = ""


def command(
    model: Annotated[
        str | None,
        typer.Option("--model", help="Also look at this model, without loading it.", autocompletion=complete_model),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Report what is installed and check that it works.

    The exit code is 1 when something is broken.
    """
    from .progress import quiet_libraries

    with quiet_libraries():
        findings = [finding for check in (_versions, _device, _folders, _model) for finding in _safely(check)]
        findings += _describe_model(model) if model is not None else []
    if as_json:
        print(json.dumps({"ok": all(f.ok for f in findings), "findings": [asdict(f) for f in findings]}))
    else:
        for f in findings:
            print(f"{'ok ' if f.ok else 'BAD'}  {f.what:<14} {f.says}")
            if not f.ok:
                print(f"     hint: {f.hint}")
    if not all(f.ok for f in findings):
        raise typer.Exit(1)


def _safely(check: Callable[[], list[Finding]]) -> list[Finding]:
    try:
        return check()
    except Exception as error:
        return [
            Finding(
                check.__name__.strip("_"),
                f"{type(error).__name__}: {error}",
                False,
                "reinstall diffusekit: make install",
            )
        ]


def _versions() -> list[Finding]:
    findings = [Finding("python", sys.version.split()[0])]
    for name in _PACKAGES:
        try:
            findings.append(Finding(name, version(name)))
        except PackageNotFoundError:
            findings.append(Finding(name, "not installed", False, f"pip install {name}"))
    return findings


def _device() -> list[Finding]:
    import torch

    from ..device import available, choose, free_memory

    chosen = choose()
    findings = [
        Finding("devices", ", ".join(available())),
        Finding("chosen", chosen.reason),
        _attention(chosen),
    ]
    if chosen.device.type == "cuda":
        free, total = torch.cuda.mem_get_info(chosen.device)
        name = torch.cuda.get_device_name(chosen.device)
        findings.append(Finding("memory", f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free on {name}"))
    else:
        findings.append(Finding("memory", f"{format_size(free_memory(chosen.device))} free on {chosen.device}"))
        findings.append(Finding("threads", str(torch.get_num_threads())))
    return findings


def _attention(placement: "Placement") -> Finding:
    """Compute the attention of one token by every kind: an installed xformers may not work on this device."""
    from ..device import check_attention

    works, fails = [], []
    for kind in ("sdpa", "xformers", "math"):
        try:
            check_attention(kind, placement)
            works.append(kind)
        except UsageError as error:
            fails.append(error.message.removeprefix("`attention` "))
    said = "; ".join([f"{' and '.join(works)} run on {placement.device}", *fails])
    return Finding("attention", said, "sdpa" in works, "reinstall torch for this device")


def _folders() -> list[Finding]:
    from pathlib import Path

    from huggingface_hub import constants

    from ..config import config_files

    free = shutil.disk_usage(".").free / 1e9
    files = ", ".join(str(p) for p in config_files()) or "none"
    return [
        Finding(
            "hub cache",
            f"{constants.HF_HUB_CACHE}{'' if Path(constants.HF_HUB_CACHE).is_dir() else ' (empty)'}",
        ),
        Finding("settings", files),
        Finding("disk", f"{free:.1f} GB free here", free > 0.1, "free some disk space, or images cannot be saved"),
    ]


def _model() -> list[Finding]:
    """Check that the embedded model is complete and generates an image."""
    from ..hub import MINI
    from ..pipeline import generate

    if not (MINI / "model_index.json").is_file():
        return [Finding("mini", f"missing from {MINI}", False, "reinstall diffusekit")]
    generate("a galaxy", steps=1, seed=0, device="cpu")
    size = sum(p.stat().st_size for p in MINI.rglob("*") if p.is_file())
    return [Finding("mini", f"{format_size(size)}, generates images")]


def _describe_model(name: str) -> list[Finding]:
    """Describe a model from its files, and compare its size with the memory of the device."""
    from .. import model_catalog
    from ..errors import DiffusekitError
    from .models.options import describe_as_rows

    try:
        about = model_catalog.describe(name).description
    except DiffusekitError as error:
        return [Finding("model", error.message, False, error.hint)]
    found = [Finding(row.replace("_", " "), says) for row, says in describe_as_rows(about).items() if row != "kind"]
    found += [Finding("note", note) for note in about.notes]
    if about.problem:
        return [Finding("model", about.problem, False, about.hint), *found]
    if about.kind != "model":
        return [Finding("model", f"{name} is not a model", False, "diffusekit models list shows the models"), *found]
    return [Finding("model", f"{name}: {about.summary()}"), *found, *_compare_memory(about.memory)]


def _compare_memory(memory: Callable[..., int]) -> list[Finding]:
    """Say whether the networks fit into the memory of the device that would be chosen."""
    import torch

    from ..device import choose

    chosen = choose()
    if chosen.device.type != "cuda":
        return []
    needed, (free, _) = memory(half=chosen.is_half), torch.cuda.mem_get_info(chosen.device)
    verb = "fit" if needed < free else "do not fit"
    return [Finding("fits", f"networks of {format_size(needed)} {verb} into {format_size(free)} of free memory")]
