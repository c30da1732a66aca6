"""`diffusekit info`: the metadata of an image."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..display import printable
from ..errors import FileRefused

if TYPE_CHECKING:
    from ..metadata import Record


def command(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A PNG, JPEG or WebP file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show how an image was made.

    Reads the metadata of diffusekit, A1111, SwarmUI, Fooocus, Draw Things, ComfyUI, InvokeAI, NovelAI and
    Easy Diffusion.
    """
    from ..metadata import PROGRAM_NAMES, read

    metadata = read(image)
    if as_json:
        print(metadata.model_dump_json())
        return
    if metadata.record is None and not metadata.parameters and not metadata.unknown:
        label = " (its label says: by a trained model)" if metadata.label else ""
        raise FileRefused(
            f"{image} does not say how it was made{label}",
            f"images from {PROGRAM_NAMES} do, if they were not edited",
        )
    rows = metadata.parameters | {key: f"unknown ({reason})" for key, reason in metadata.unknown.items()}
    if metadata.record is not None:
        rows = _rows_of(metadata.record)
    is_composite = metadata.record is not None and metadata.record.start_image
    source_type = "compositeWithTrainedAlgorithmicMedia" if is_composite else "trainedAlgorithmicMedia"
    rows["label"] = f"AI-generated (IPTC {source_type})" if metadata.label else "none"
    width = max(len(key) for key in rows)
    for key, value in rows.items():
        text = printable(value if isinstance(value, str) else json.dumps(value), allow="\n")
        print(f"{key.replace('_', ' '):<{width}}  {text}")


def _rows_of(record: "Record") -> dict[str, Any]:
    """What a record of ours says, by name."""
    hidden = {"images", "batch"}
    if not record.mask:
        hidden |= {"invert_mask", "mask_blur", "mask_padding", "mask_content"}
    settings = record.settings.model_dump(exclude=hidden)
    rows = {name: value for name, value in settings.items() if value not in (None, "", (), [])}
    sources = {"start image": record.start_image, "mask": record.mask}
    rows |= {name: f"SHA-256 {sha256}" for name, sha256 in sources.items() if sha256}
    rows["made on"] = f"{record.device}, {record.dtype}"
    rows |= {"model hash": record.model_hash} if record.model_hash else {"model revision": record.revision}
    rows |= {"vae hash": record.vae_hash} if record.vae_hash else {}
    rows |= {f"grid {name}": ", ".join(labels) for name, labels in record.axes.items()}
    for key, hashes in (("embedding", record.embeddings), ("lora hashes", record.loras)):
        if hashes:
            rows[key] = ", ".join(f"{name} {sha[:12]}" for name, sha in hashes.items())
    rows["versions"] = ", ".join(f"{k} {v}" for k, v in record.versions.items())
    return rows
