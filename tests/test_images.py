"""Untrusted images are opened safely and converted exactly."""

import io
import struct
import time

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from diffusekit import images
from diffusekit.errors import FileRefused
from tests.helpers.png import bomb, chunk, png


def test_rounding_and_order():
    tensor = torch.tensor([-1.0, 0.0, 1.0])[None, :, None, None].expand(1, 3, 2, 5)
    (picture,) = images.to_pil(tensor)
    assert picture.size == (5, 2) and picture.getpixel((0, 0)) == (0, 128, 255)


def test_grids_are_filled_row_by_row():
    colors = [(i * 40, 0, 0) for i in range(5)]
    sheet = images.make_grid([Image.new("RGB", (4, 3), c) for c in colors], 2)
    assert sheet.size == (8, 9)
    assert [sheet.getpixel((i % 2 * 4, i // 2 * 3)) for i in range(5)] == colors


def opened(picture: Image.Image, kind: str, **options) -> Image.Image:
    """The picture as it comes back from a file."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return images.open_image(file.getvalue())


def pixels(picture: Image.Image) -> list:
    assert picture.mode == "RGB" and not picture.info
    return np.asarray(picture).tolist()


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path):
    started = time.perf_counter()
    with pytest.raises(FileRefused, match="too large"):
        images.open_image(bomb(tmp_path / "bomb.png"))
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"not an image", b"<svg/>", b"%!PS-Adobe-3.0 EPSF"])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(FileRefused, match="not an image"):
        images.open_image(tmp_path / "x.png")


def test_missing_files_and_folders_are_refused(tmp_path):
    for path in (tmp_path / "nothing.png", tmp_path):
        with pytest.raises(FileRefused, match="cannot open"):
            images.open_image(path)


def test_a_truncated_image_is_refused_when_decoded(tmp_path):
    Image.effect_noise((200, 200), 90).convert("RGB").save(tmp_path / "whole.png")
    data = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "half.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(FileRefused, match="damaged"):
        images.to_rgb(images.open_image(tmp_path / "half.png"))


def test_messages_use_the_given_name():
    with pytest.raises(FileRefused, match="photo 3 is not an image"):
        images.open_image(b"GIF89a", "photo 3")
    assert images.open_image(images.encode(Image.new("RGB", (3, 2)), "PNG")).size == (3, 2)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_damaged_files_are_refused_or_read_without_a_crash(kind):
    file = io.BytesIO()
    Image.effect_noise((60, 50), 90).convert("RGB").save(file, kind)
    data = file.getvalue()
    prefixes = [data[:n] for n in (0, 1, 8, 100, len(data) // 2, len(data) - 1)]
    chance = np.random.default_rng(0)
    flipped = []
    for _ in range(200):
        changed = bytearray(data)
        changed[chance.integers(len(data))] ^= int(chance.integers(1, 256))
        flipped.append(bytes(changed))
    refused = 0
    for broken in prefixes + flipped:
        try:
            picture = images.open_image(broken)
            assert images.to_rgb(picture).mode == "RGB"
            images.read_alpha(picture)
        except FileRefused:
            refused += 1
    assert refused >= 4  # at least four of the prefixes have no whole picture


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_all_orientations_give_the_same_pixels(kind):
    scene = Image.new("RGB", (48, 32), (20, 200, 90))
    scene.paste((250, 10, 10), (0, 0, 16, 16))
    scene.paste((10, 10, 250), (32, 16, 48, 32))
    exact = {"PNG": {}, "JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}
    found = []
    for orientation in range(1, 9):
        turn = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}.get(orientation)
        stored = scene if turn is None else scene.transpose(Image.Transpose(turn))
        exif = Image.Exif()
        exif[0x0112] = orientation
        found.append(images.to_rgb(opened(stored, kind, exif=exif, **exact.get(kind, {}))))
    assert all(picture.size == (48, 32) for picture in found)
    arrays = [np.asarray(picture).astype(int) for picture in found]
    allowed = 3 if kind == "JPEG" else 0
    assert all(abs(array - np.asarray(scene).astype(int)).max() <= allowed for array in arrays)


GRAYS = (0, 300, 32768, 65535)
SCALED = [[[v] * 3 for v in (0, 1, 128, 255)]]


@pytest.mark.parametrize("channels, kind", [(1, 0), (3, 2)])
def test_16_bits_are_scaled_not_clipped(channels, kind):
    row = b"\0" + b"".join(struct.pack(">H", v) * channels for v in GRAYS)
    assert pixels(images.to_rgb(images.open_image(png(4, 1, 16, kind, row)))) == SCALED


def test_wide_grays_of_every_mode():
    grays = np.array([GRAYS])
    for mode, values in (
        ("I;16", grays.astype(np.uint16)),
        ("I", grays.astype(np.int32)),
        ("F", (grays / 65535).astype(np.float32)),
        ("F", (grays / 257).astype(np.float32)),
        ("I", (grays * 1000).astype(np.int32)),  # beyond 16 bits: from darkest to brightest
    ):
        picture = Image.fromarray(values)
        assert picture.mode == mode
        assert pixels(images.to_rgb(opened(picture, "TIFF"))) == SCALED
    assert pixels(images.to_rgb(Image.fromarray(np.array([[np.nan, 1.0]], np.float32)))) == [
        [[0, 0, 0], [255, 255, 255]]
    ]


def test_transparent_pixels_become_white():
    red = (255, 0, 0)
    rgba = Image.new("RGBA", (3, 1), (*red, 255))
    rgba.putpixel((1, 0), (*red, 0))
    rgba.putpixel((2, 0), (0, 0, 0, 128))
    found = opened(rgba, "PNG")
    assert pixels(images.to_rgb(found)) == [[list(red), [255] * 3, [127] * 3]]
    assert np.asarray(images.read_alpha(found)).tolist() == [[255, 0, 128]]

    gray = Image.new("LA", (2, 1), (100, 255))
    gray.putpixel((1, 0), (100, 0))
    assert pixels(images.to_rgb(opened(gray, "PNG"))) == [[[100] * 3, [255] * 3]]

    palette = Image.new("P", (3, 1))
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    for place in range(3):
        palette.putpixel((place, 0), place)
    for transparency in (1, bytes([255, 0, 255])):
        found = opened(palette, "PNG", transparency=transparency)
        assert pixels(images.to_rgb(found)) == [[list(red), [255] * 3, [0, 0, 255]]]
        assert np.asarray(images.read_alpha(found)).tolist() == [[255, 0, 255]]


@pytest.mark.parametrize("channels, kind", [(1, 0), (3, 2)])
def test_one_transparent_color_of_16_bits(channels, kind):
    row = b"\0" + b"".join(struct.pack(">H", v) * channels for v in GRAYS)
    hole = chunk(b"tRNS", struct.pack(">H", 32768) * channels)
    found = images.open_image(png(4, 1, 16, kind, row, hole))
    assert pixels(images.to_rgb(found)) == [[[v] * 3 for v in (0, 1, 255, 255)]]
    assert np.asarray(images.read_alpha(found)).tolist() == [[255, 255, 0, 255]]


def test_alpha_is_upright_and_none_when_opaque():
    stored = Image.new("RGBA", (4, 2), "red")
    stored.putpixel((0, 0), (0, 0, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise
    alpha = images.read_alpha(opened(stored, "PNG", exif=exif))
    assert alpha is not None and alpha.size == (2, 4)
    assert alpha.getpixel((1, 0)) == 0 and alpha.getpixel((0, 0)) == 255
    assert images.read_alpha(Image.new("RGBA", (4, 2), "red")) is None
    assert images.read_alpha(Image.new("RGB", (4, 2), "red")) is None


def test_cmyk_one_bit_and_lab():
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    for kind in ("JPEG", "TIFF"):  # Pillow's JPEG is inverted and says so, as Adobe's are
        red, green, blue = images.to_rgb(opened(cmyk, kind)).getpixel((8, 8))
        assert red > 250 and green < 5 and blue < 5

    bits = Image.new("1", (2, 1))
    bits.putpixel((1, 0), 1)
    assert pixels(images.to_rgb(opened(bits, "PNG"))) == [[[0] * 3, [255] * 3]]

    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    orange = Image.new("RGB", (2, 1), (230, 120, 20))
    stored = ImageCms.profileToProfile(orange, srgb, lab, outputMode="LAB")
    found = images.to_rgb(opened(stored, "TIFF")).getpixel((0, 0))
    assert max(abs(a - b) for a, b in zip(found, (230, 120, 20), strict=True)) <= 4


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animations_give_their_first_frame(kind):
    frames = [Image.new("RGB", (20, 20), color) for color in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    found = opened(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert getattr(found, "n_frames", 1) == 3
    assert images.to_rgb(found).getpixel((5, 5)) == (255, 0, 0)


def swapped_profile() -> bytes:
    """An ICC profile in which red and green have changed places: sRGB with its two tags exchanged."""
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = data.replace(b"rXYZ", b"tmp_").replace(b"gXYZ", b"rXYZ").replace(b"tmp_", b"gXYZ")
    return data.replace("sRGB".encode("utf-16-be"), "RG-X".encode("utf-16-be"))


def test_color_profiles_are_applied_and_broken_ones_ignored():
    colors = Image.new("RGB", (2, 1), (200, 40, 90))
    followed = images.to_rgb(opened(colors, "PNG", icc_profile=swapped_profile()))
    red, green, blue = followed.getpixel((0, 0))
    assert abs(red - 40) <= 3 and abs(green - 200) <= 3 and abs(blue - 90) <= 3
    assert not followed.info

    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (srgb, b"nonsense", swapped_profile()[:200]):
        assert images.to_rgb(opened(colors, "PNG", icc_profile=profile)).getpixel((0, 0)) == (200, 40, 90)
    gray = opened(Image.new("L", (2, 1), 77), "PNG", icc_profile=swapped_profile())  # does not fit
    assert images.to_rgb(gray).getpixel((0, 0)) == (77, 77, 77)


@pytest.mark.filterwarnings("error")
def test_broken_exif_is_ignored():
    found = opened(Image.new("RGB", (9, 7), "red"), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01")
    assert images.to_rgb(found).size == (9, 7)


def test_tensor_and_back():
    noise = Image.effect_noise((31, 17), 120).convert("RGB")
    tensor = images.to_tensor(noise)
    assert tensor.shape == (3, 17, 31) and tensor.dtype == torch.float32
    assert tensor.min() >= -1 and tensor.max() <= 1
    assert images.to_pil(tensor[None])[0].tobytes() == noise.tobytes()
    white = images.to_tensor(Image.new("L", (2, 2), 255))
    assert white.shape == (3, 2, 2) and torch.equal(white, torch.ones(3, 2, 2))


def test_squares_are_cropped_not_distorted():
    wide = Image.new("RGB", (90, 30), "black")
    wide.paste("red", (0, 0, 30, 30))
    wide.paste("lime", (30, 0, 60, 30))
    wide.paste("blue", (60, 0, 90, 30))
    for x, color in ((0.0, (255, 0, 0)), (0.5, (0, 255, 0)), (1.0, (0, 0, 255))):
        for side in (30, 10, 64):
            found = images.crop_square(wide, side, offset=(x, 0.0))
            assert found.size == (side, side) and found.getcolors() == [(side * side, color)]
    tall = wide.transpose(Image.Transpose.ROTATE_90)  # blue on top
    assert images.crop_square(tall, 30, offset=(0.0, 0.0)).getcolors() == [(900, (0, 0, 255))]
    assert images.crop_square(tall, 30, offset=(1.0, 1.0)).getcolors() == [(900, (255, 0, 0))]
