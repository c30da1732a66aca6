"""Token files as other programs write them, good and hostile, made when a test runs."""

import base64
import io
import json
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, PngImagePlugin
from safetensors.torch import save_file

from diffusekit.embeddings import LearnedToken


def rows(count: int = 2, width: int = 768, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed)) * 0.02


def token(count=2, width=(256,), **metadata: str) -> LearnedToken:
    vectors = tuple(rows(count, w, seed=i) for i, w in enumerate(width))
    return LearnedToken("my_cat", "S*", vectors, metadata)


def raw(header, data: bytes = b"") -> bytes:
    """A safetensors file with any header at all."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensors(path: Path, found: dict, metadata: dict | None = None) -> Path:
    save_file(found, path, metadata)
    return path


# --- pictures, as A1111 makes them ---------------------------------------------------------------


def a1111_json(vectors: torch.Tensor, name: str = "bad-hands") -> str:
    return json.dumps(
        {
            "string_to_token": {"*": 265},
            "string_to_param": {"*": {"TORCHTENSOR": vectors.tolist()}},
            "name": name,
            "step": 500,
            "sd_checkpoint": None,
            "sd_checkpoint_name": None,
        }
    )


def png_with_text(path: Path, text: str, *, kind: str = "tEXt") -> Path:
    info = PngImagePlugin.PngInfo()
    packed = base64.b64encode(text.encode()).decode()
    if kind == "iTXt":
        info.add_itxt("sd-ti-embedding", packed, zip=True)
    else:
        info.add_text("sd-ti-embedding", packed, zip=kind == "zTXt")
    Image.new("RGB", (64, 64), "teal").save(path, pnginfo=info)
    return path


def png_with_pixels(path: Path, text: str, *, frame: int = 0, height: int = 128) -> Path:
    """Low nibbles, black column, picture, black column, high nibbles; written from the description."""
    packed = np.frombuffer(zlib.compress(text.encode(), 9), np.uint8)
    size = -(-packed.size // (height * 3)) * height * 3
    blocks = []
    for nibbles in (packed & 0x0F, packed >> 4):
        block = np.resize(nibbles, size).reshape(height, -1, 3).astype(np.uint8)
        value, sequence = 0, []
        for _ in range(size):
            value = (1664525 * value + 1013904223) % 2**32
            sequence.append(value % 255)
        mask = np.array(sequence, np.uint8).reshape(block.shape) & 0x0F
        blocks.append((block ^ mask) | 0x30)  # A1111 draws dots into the high nibbles
    picture = Image.new("RGB", (100, height), (200, 90, 31))
    ImageDraw.Draw(picture).ellipse((20, 20, 80, 80), fill=(17, 255, 3))
    black = np.zeros((height, 1, 3), np.uint8)
    whole = np.concatenate([blocks[0], black, np.asarray(picture), black, blocks[1]], axis=1)
    whole = np.pad(whole, ((frame, frame), (frame, frame), (0, 0)))
    Image.fromarray(whole).save(path)
    return path


# --- pickles that want to do something -----------------------------------------------------------


class Evil:
    def __init__(self, function, *arguments):
        self._call = function, arguments

    def __reduce__(self):
        return self._call


def payloads(canary: Path) -> dict[str, object]:
    """What pickles have been made to call; each would leave the canary file behind."""
    import builtins
    import ctypes
    import importlib
    import logging
    import os
    import runpy
    import shutil
    import subprocess
    import tempfile
    import webbrowser

    write = f"open({str(canary)!r}, 'w').close()"
    script = canary.with_name("payload.py")
    script.write_text(write)
    return {
        "os.system": Evil(os.system, f"touch {canary}"),
        "os.popen": Evil(os.popen, f"touch {canary}"),
        "subprocess": Evil(subprocess.check_call, ["touch", str(canary)]),
        "eval": Evil(builtins.eval, write),
        "exec": Evil(builtins.exec, write),
        "open": Evil(builtins.open, str(canary), "w"),
        "import": Evil(builtins.__import__, "payload"),
        "importlib": Evil(importlib.import_module, "payload"),
        "runpy": Evil(runpy.run_path, str(script)),
        "logging": Evil(logging.FileHandler, str(canary)),
        "ctypes": Evil(ctypes.CDLL, str(canary)),
        "webbrowser": Evil(webbrowser.open, f"file://{canary}"),
        "shutil": Evil(shutil.copy, str(script), str(canary)),
        "tempfile": Evil(tempfile.mkstemp, "", "", str(canary.parent)),
        "torch.load": Evil(torch.load, str(canary)),
        "getattr": Evil(builtins.getattr, Evil(builtins.__import__, "os"), "system"),
        "mkdir": Evil(os.mkdir, str(canary)),
        "nested": {"*": [Evil(os.system, f"touch {canary}")]},
        "in place of a tensor": {"string_to_param": {"*": Evil(os.system, f"touch {canary}")}},
    }


def evil_bytes(payload: object) -> dict[str, bytes]:
    """One payload in all the wrappings that torch might open."""
    file = io.BytesIO()
    torch.save(payload, file)
    legacy = io.BytesIO()
    torch.save(payload, legacy, _use_new_zipfile_serialization=False)
    found = {f"protocol {p}": pickle.dumps(payload, p) for p in range(6)}
    found["payload, then noise"] = pickle.dumps(payload, 2)[:-1] + b"\xff" * 40
    return found | {"zip": file.getvalue(), "legacy": legacy.getvalue()}


def good_zip() -> bytes:
    file = io.BytesIO()
    torch.save({"S*": rows()}, file)
    return file.getvalue()


def bad_zips() -> dict[str, bytes]:
    """Zips that are not quite what torch.save writes; none may reach torch."""
    good = good_zip()

    def repacked(change=None, more=(), kind=zipfile.ZIP_STORED) -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(good)) as old, zipfile.ZipFile(file, "w", kind) as new:
            for part in old.infolist():
                new.writestr(part.filename, old.read(part.filename))
            for name, data in more:
                new.writestr(name, data)
        return change(bytearray(file.getvalue())) if change else file.getvalue()

    def flags(bits):
        def change(data: bytearray) -> bytes:
            at = data.find(b"PK\x01\x02")
            data[at + 8] |= bits
            return bytes(data)

        return change

    def other_local_name(data: bytearray) -> bytes:
        data[30:34] = b"evil"
        return bytes(data)

    def wrong_checksum(data: bytearray) -> bytes:
        at = data.find(b"PK\x01\x02")
        data[at + 16] ^= 0xFF
        local = data.find(b"PK\x03\x04")
        data[local + 14] ^= 0xFF
        return bytes(data)

    return {
        "two data.pkl": repacked(more=[("other/data.pkl", pickle.dumps({}))]),
        "no data.pkl": good.replace(b"data.pkl", b"date.pkl"),
        "local name": repacked(other_local_name),
        "encrypted": repacked(flags(0x1)),
        "patched": repacked(flags(0x20)),
        "strongly encrypted": repacked(flags(0x40)),
        "checksum": repacked(wrong_checksum),
        "outside": repacked(more=[("../x", b"x")]),
        "absolute": repacked(more=[("/x", b"x")]),
        "drive": repacked(more=[("C:x", b"x")]),
        "bomb": repacked(more=[("archive/data/9", bytes(2**26))], kind=zipfile.ZIP_DEFLATED),
        "torchscript": repacked(more=[("archive/constants.pkl", b"x")]),
        "behind": good + b"more",
        "in front": raw({"S*": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}) + good,
        "cut": good[: len(good) // 2],
    }
