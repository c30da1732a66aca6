"""Pictures from anywhere are opened safely."""

import struct
import time
import zlib

import pytest
import torch
from PIL import Image

from diffusekit import images
from diffusekit.errors import FileRefused


def test_rounding_and_order():
    tensor = torch.tensor([-1.0, 0.0, 1.0])[None, :, None, None].expand(1, 3, 2, 5)
    (picture,) = images.to_pil(tensor)
    assert picture.size == (5, 2) and picture.getpixel((0, 0)) == (0, 128, 255)


def test_grid_places_row_by_row():
    colors = [(i * 40, 0, 0) for i in range(5)]
    sheet = images.grid([Image.new("RGB", (4, 3), c) for c in colors], 2)
    assert sheet.size == (8, 9)
    assert [sheet.getpixel((i % 2 * 4, i // 2 * 3)) for i in range(5)] == colors


def bomb(path, width=60_000, height=60_000):
    """A one-bit PNG of a few kilobytes that would be 3.6 gigapixels."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"\0" * 100_000))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + body + chunk(b"IEND", b""))
    return path


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path):
    started = time.perf_counter()
    with pytest.raises(FileRefused, match="too large"):
        images.open_picture(bomb(tmp_path / "bomb.png"))
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize(
    "content", [b"", b"\x89PNG\r\n\x1a\n", b"not a picture", b"<svg/>", b"%!PS-Adobe-3.0 EPSF"]
)
def test_what_is_no_picture_is_refused(tmp_path, content):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(FileRefused, match="not a picture"):
        images.open_picture(tmp_path / "x.png")


def test_missing_and_folder(tmp_path):
    for path in (tmp_path / "nothing.png", tmp_path):
        with pytest.raises(FileRefused, match="cannot open"):
            images.open_picture(path)


def test_a_truncated_picture_is_refused_when_used(tmp_path):
    Image.effect_noise((200, 200), 90).convert("RGB").save(tmp_path / "whole.png")
    data = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "half.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(FileRefused, match="damaged"):
        images.upright(images.open_picture(tmp_path / "half.png"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_in_every_orientation(tmp_path, orientation):
    upright = Image.new("RGB", (40, 20))
    upright.paste((255, 0, 0), (0, 0, 10, 10))
    turn = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}.get(orientation)  # how a camera stores it
    stored = upright if turn is None else upright.transpose(Image.Transpose(turn))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "x.png", exif=exif)
    found = images.upright(images.open_picture(tmp_path / "x.png"))
    assert found.size == (40, 20) and found.getpixel((2, 2)) == (255, 0, 0)
