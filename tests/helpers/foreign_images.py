"""Images with the metadata of other programs, made when a test runs."""

import json
from pathlib import Path

from PIL import Image, PngImagePlugin

EXIF_FOLDER, USER_COMMENT = 0x8769, 0x9286
PICTURE = Image.new("RGB", (16, 8))


def png(path: Path, **texts) -> Path:
    """A PNG with texts by key; what is not text is written as JSON. `sd_metadata` is the key sd-metadata."""
    info = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        info.add_itxt(key.replace("sd_metadata", "sd-metadata"), text if isinstance(text, str) else json.dumps(text))
    PICTURE.save(path, pnginfo=info)
    return path


def with_chunk(path: Path, key: str, data: bytes) -> Path:
    """A PNG whose tEXt chunk holds these bytes, whatever their encoding."""
    info = PngImagePlugin.PngInfo()
    info.add(b"tEXt", key.encode() + b"\0" + data)
    PICTURE.save(path, pnginfo=info)
    return path


def exif_bytes(order: str, tags: dict[int, tuple[int, bytes]], below: dict[int, tuple[int, bytes]] | None = None):
    """EXIF by hand: "little" or "big", tags of the first directory and of the EXIF folder as (type, bytes)."""

    def number(value, size):
        return value.to_bytes(size, order)

    def directory(at, entries):
        data, rows = b"", b""
        start = at + 2 + 12 * len(entries) + 4
        for tag, (kind, value) in sorted(entries.items()):
            count = len(value) // 4 if kind == 4 else len(value)
            rows += number(tag, 2) + number(kind, 2) + number(count, 4)
            if len(value) <= 4:
                rows += value.ljust(4, b"\0")
            else:
                rows += number(start + len(data), 4)
                data += value + b"\0" * (len(value) % 2)
        return number(len(entries), 2) + rows + number(0, 4) + data

    first = dict(tags)
    if below:
        first[EXIF_FOLDER] = (4, number(0, 4))
        first[EXIF_FOLDER] = (4, number(8 + len(directory(8, first)), 4))
    head = (b"II" if order == "little" else b"MM") + number(42, 2) + number(8, 4)
    body = head + directory(8, first)
    return b"Exif\0\0" + body + (directory(len(body), below) if below else b"")


def with_comment(path: Path, comment: bytes, *, order: str = "big", first: bool = False) -> Path:
    """A JPEG, WebP or PNG with an EXIF comment, in the EXIF folder or in the first directory, in either byte order."""
    tags = {USER_COMMENT: (7, comment)}
    exif = exif_bytes(order, tags) if first else exif_bytes(order, {}, tags)
    PICTURE.save(path, exif=exif)
    return path


def node(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


def comfy(**changes) -> dict:
    """ComfyUI's usual graph: one sampler. `changes` are nodes by number, "n6" for node 6; None removes one."""
    graph = {
        "3": node(
            "KSampler",
            seed=5,
            steps=20,
            cfg=8.0,
            sampler_name="euler",
            scheduler="normal",
            denoise=1.0,
            model=["4", 0],
            positive=["6", 0],
            negative=["7", 0],
            latent_image=["5", 0],
        ),
        "4": node("CheckpointLoaderSimple", ckpt_name="v1-5.safetensors"),
        "5": node("EmptyLatentImage", width=512, height=640, batch_size=1),
        "6": node("CLIPTextEncode", text="a red cat", clip=["4", 1]),
        "7": node("CLIPTextEncode", text="blurry", clip=["4", 1]),
        "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
        "9": node("SaveImage", filename_prefix="ComfyUI", images=["8", 0]),
    }
    graph |= {name.removeprefix("n"): changed for name, changed in changes.items()}
    return {number: found for number, found in graph.items() if found is not None}


def ksampler(**inputs) -> dict:
    """The sampler of `comfy`, with other inputs."""
    return node("KSampler", **(comfy()["3"]["inputs"] | inputs))
