"""What a picture says of itself: how it was made, for people, for other programs and for us.

Three things are written: A1111's infotext (key `parameters`), our own JSON without loss (key
`diffusekit`), and the IPTC label that says a trained model made it. Knows no torch.
"""

from __future__ import annotations

import json
import os
import platform
import re
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, PngImagePlugin
from pydantic import BaseModel, ConfigDict, ValidationError

from .. import images
from ..errors import DiskError, FileRefused, UsageError
from ..schedule import SAMPLERS
from ..settings import GenerateSettings, validate
from . import other_tools

if TYPE_CHECKING:
    from ..device import Placement

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
LABEL = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
_XMP_KEY = "XML:com.adobe.xmp"
_USER_COMMENT = 0x9286
_EXIF_FOLDER = 0x8769
_MAX_TEXT = 1_000_000
_XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""'
    ' xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">'
    f"<Iptc4xmpExt:DigitalSourceType>{LABEL}</Iptc4xmpExt:DigitalSourceType>"
    '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)


class Record(BaseModel):
    """How one picture was made: complete settings, the model's revision, and what it ran on."""

    model_config = ConfigDict(frozen=True)

    schema_version: int = 1
    settings: GenerateSettings
    revision: str = ""
    device: str = ""
    dtype: str = ""
    versions: dict[str, str] = {}
    embeddings: dict[str, str] = {}  # SHA-256 of the files of learned tokens, by name
    axes: dict[str, tuple[str, ...]] = {}  # of a sheet of pictures: what changes, and its labels

    @classmethod
    def create(
        cls,
        settings: GenerateSettings,
        revision: str,
        placement: Placement,
        embeddings: dict[str, str] | None = None,
    ) -> Record:
        packages = ("diffusekit", "torch", "diffusers", "transformers")
        versions = {name: _version(name) for name in packages} | {"python": platform.python_version()}
        return cls(
            settings=settings,
            revision=revision,
            device=str(placement.device),
            dtype=placement.dtype_name,
            versions=versions,
            embeddings=embeddings or {},
        )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


# --- A1111's infotext ------------------------------------------------------------------------

_PARAM = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
_NEGATIVE = "Negative prompt:"


def format_infotext(record: Record) -> str:
    """The text A1111 and Forge read. The negative line is always there: ComfyUI looks for it."""
    s = record.settings
    sampler = SAMPLERS[s.sampler]
    pairs: dict[str, Any] = {
        "Steps": s.steps,
        "Sampler": sampler.label,
        "Schedule type": sampler.schedule_type,
        "CFG scale": s.guidance_scale,
        "Seed": s.seed,
        "Size": f"{s.width}x{s.height}",
        "Model": s.model,
        "RNG": "CPU",
        "TI hashes": ", ".join(f"{name}: {sha[:12]}" for name, sha in record.embeddings.items()),
        "Version": f"diffusekit {record.versions.get('diffusekit', '')}".strip(),
    }
    for letter, (name, labels) in zip("XYZ", record.axes.items(), strict=False):
        pairs |= {"Script": "X/Y/Z plot", f"{letter} Type": name}
        pairs[f"{letter} Values"] = ", ".join(labels)
    line = ", ".join(f"{key}: {_quoted(value)}" for key, value in pairs.items() if value not in ("", None))
    return f"{s.prompt}\n{_NEGATIVE} {s.negative_prompt}\n{line}"


def _quoted(value: Any) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(c in text for c in ",\n:") else text


def parse_infotext(text: str) -> dict[str, str]:
    """A1111's infotext as a flat dictionary with the keys `Prompt`, `Negative prompt` and its own."""
    lines = text.strip().split("\n")
    pairs = _PARAM.findall(lines[-1]) if len(lines[-1]) < 50_000 else []
    if len(pairs) < 3:
        pairs = []
    else:
        lines.pop()
    prompt, negative, target = [], [], None
    for line in lines:
        if target is None and line.startswith(_NEGATIVE):
            target, line = negative, line[len(_NEGATIVE) :].removeprefix(" ")
        (prompt if target is None else target).append(line)
    found = {"Prompt": "\n".join(prompt).strip(), "Negative prompt": "\n".join(negative).strip()}
    return found | {key.strip(): _unquoted(value) for key, value in pairs}


def _unquoted(value: str) -> str:
    if value.startswith('"') and value.endswith('"') and len(value) > 1:
        try:
            return str(json.loads(value))
        except ValueError:
            return value
    return value.strip()


def settings_from_infotext(pairs: dict[str, str]) -> GenerateSettings:
    """Our settings of a picture another program made, as far as they mean the same here.

    Raises `UsageError` for values that cannot be used; the model is left at the default, because its
    name says nothing here.
    """
    names = {(s.label, s.schedule_type): name for name, s in SAMPLERS.items()}
    label, kind = pairs.get("Sampler", ""), pairs.get("Schedule type", "")
    if label.endswith(" Karras"):
        label, kind = label.removesuffix(" Karras"), "Karras"
    values: dict[str, Any] = {
        "prompt": pairs["Prompt"],
        "negative_prompt": pairs["Negative prompt"],
    }
    values["sampler"] = names.get((label, kind), names.get((label, "")))
    for key, name in (("Steps", "steps"), ("CFG scale", "guidance_scale"), ("Seed", "seed")):
        values[name] = pairs.get(key)
    values["width"], _, values["height"] = pairs.get("Size", "").partition("x")
    return validate(GenerateSettings, {key: value for key, value in values.items() if value})


# --- files -----------------------------------------------------------------------------------


def save(
    image: Image.Image,
    path: Path,
    record: Record | None,
    *,
    label: bool = True,
    overwrite: bool = False,
) -> Path:
    """Write a picture with what is known of it: beside, checked, then renamed into place.

    The kind follows the ending: .png, .jpg, .webp. Raises `UsageError` for another ending or a file that
    is there already, `DiskError` when it cannot be written; then nothing is left behind.
    """
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise UsageError(f"{path.name!r} does not end like a picture", f"endings: {', '.join(FORMATS)}")
    if path.exists() and not overwrite:
        raise UsageError(f"{path} is already there", "choose another name, or say --overwrite")
    beside: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem[:40]}-", suffix=path.suffix)
        os.close(handle)
        beside = Path(name)
        image.save(beside, kind, **save_kwargs(kind, record, label))
        with Image.open(beside) as again:
            again.load()
        beside.chmod(0o666 & ~_umask())
        beside.replace(path)
    except OSError as error:
        if beside is not None:
            beside.unlink(missing_ok=True)
        raise DiskError(
            f"{path} could not be written: {error.strerror or error}",
            "is there room, and may you write there?",
        ) from None
    return path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def save_kwargs(format: str, record: Record | None, label: bool) -> dict[str, Any]:
    """What Pillow's `save` needs to write record and label into a file of some kind."""
    own = record.model_dump_json() if record else ""
    if format == "PNG":
        info = PngImagePlugin.PngInfo()
        if record:
            info.add_text(
                "parameters", format_infotext(record)
            )  # tEXt if it is Latin-1, as most readers want; else iTXt
            info.add_itxt("diffusekit", own)
        if label:
            info.add_itxt(_XMP_KEY, _XMP)
        # level 1 is several times faster than the default and a fifth larger; no pixel differs
        return {"pnginfo": info, "compress_level": 1}
    extras: dict[str, Any] = {"quality": 95}
    if record:
        exif = Image.Exif()
        text = f"{format_infotext(record)}\ndiffusekit: {own}"
        exif.get_ifd(_EXIF_FOLDER)[_USER_COMMENT] = b"UNICODE\x00" + text.encode("utf-16-be")
        extras["exif"] = exif
    if label:
        extras["xmp"] = _XMP.encode()
    return extras


class ImageMetadata(BaseModel):
    """What a picture file says of itself: our record, or what another program wrote in A1111's words, or
    neither."""

    model_config = ConfigDict(frozen=True)

    record: Record | None = None
    parameters: dict[str, str] = {}
    label: bool = False

    @property
    def settings(self) -> GenerateSettings | None:
        if self.record:
            return self.record.settings
        return settings_from_infotext(self.parameters) if len(self.parameters) > 2 else None


def read(path: Path) -> ImageMetadata:
    """Read what `save`, A1111, Forge or one of the programs that `foreign` knows wrote into a picture.

    Raises `FileRefused` if it is none.
    """
    with images.open_image(path) as picture:
        try:
            texts = {k: v for k, v in getattr(picture, "text", picture.info).items() if isinstance(v, str)}
            exif = picture.getexif().get_ifd(_EXIF_FOLDER).get(_USER_COMMENT)
            xmp = picture.info.get("xmp", texts.get(_XMP_KEY, ""))
        except (OSError, ValueError, SyntaxError) as error:
            raise FileRefused(f"{path} is damaged: {error}", "use another copy of it") from None
    text, own = texts.get("parameters", ""), texts.get("diffusekit", "")
    if isinstance(exif, bytes) and exif.startswith(b"UNICODE\x00"):
        text, _, own = exif[8:].decode("utf-16-be", "replace").rpartition("\ndiffusekit: ")
        if not text:
            text, own = own, ""
    xmp = xmp.decode("utf-8", "replace") if isinstance(xmp, bytes) else str(xmp)
    record, parameters = _own(own), parse_infotext(text) if len(text) < _MAX_TEXT else {}
    if record is None:
        known = len(parameters) > 2  # A1111's, or Fooocus' JSON that looks like it
        parameters = other_tools.read_parameters({"parameters": text} if known else texts) or parameters
    return ImageMetadata(record=record, parameters=parameters if any(parameters.values()) else {}, label=LABEL in xmp)


def _own(text: str) -> Record | None:
    if not text or len(text) > _MAX_TEXT:
        return None
    try:
        return Record.model_validate_json(text)
    except ValidationError:
        return None
