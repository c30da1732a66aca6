"""A folder of photographs, good and bad, becomes a data set; each is encoded once."""

import io
import os
import shutil
import time

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from diffusekit import latents
from diffusekit.errors import DataSetError, UsageError
from diffusekit.inversion import dataset
from diffusekit.inversion.dataset import collect, note_enlarged
from diffusekit.inversion.encoded_dataset import encode


def photo(seed, size=(96, 64), mode="RGB"):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1] // 8, size[0] // 8, 3))
    return Image.fromarray(pixels.astype(np.uint8)).resize(size, Image.Resampling.NEAREST).convert(mode)


def folder(tmp_path, count=4):
    path = tmp_path / "my_cat"
    path.mkdir()
    for i in range(count):
        photo(i).save(path / f"{i:02}.png")
    return path


def rows(data):
    return {row.file: row for row in data.files}


@pytest.fixture
def mixed(tmp_path):
    path = folder(tmp_path)
    (path / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (path / "Thumbs.db").write_bytes(b"\xd0\xcf")
    (path / "notes.txt").write_text("feed the cat")
    (path / "02.txt").write_text("on a roof")
    (path / "more").mkdir()
    whole = (path / "00.png").read_bytes()
    (path / "truncated.png").write_bytes(whole[: len(whole) // 2])
    photo(1).save(path / "copy.bmp")
    return path


def test_a_mixed_folder_gives_what_is_good_and_says_why_the_rest_is_not(mixed):
    data = collect(mixed)
    assert [p.file for p in data.photos] == ["00.png", "01.png", "02.png", "03.png"]
    assert [p.caption for p in data.photos] == [None, None, "on a roof", None]
    found = rows(data)
    used = {file for file, row in found.items() if row.used}
    assert used == {p.file for p in data.photos} and len(data.files) == 10
    assert found["00.png"].size == "96x64" and found["00.png"].note == ""
    reasons = {file: row.note for file, row in found.items() if not row.used}
    assert reasons.pop("truncated.png").startswith("damaged: ")
    assert reasons == {
        ".DS_Store": "a hidden file",
        "Thumbs.db": "a file of the operating system",
        "notes.txt": "not an image that can be read",
        "more": "a sub-folder, which is not entered",
        "copy.bmp": "a duplicate of 01.png",
    }


def test_strict_names_the_first_that_is_bad(mixed):
    with pytest.raises(DataSetError, match=r"copy\.bmp cannot be used: a duplicate of 01"):
        collect(mixed, strict=True)
    for name in ("copy.bmp", "more", "notes.txt", "truncated.png"):
        path = mixed / name
        path.rmdir() if path.is_dir() else path.unlink()
    assert len(collect(mixed, strict=True).photos) == 4  # what systems leave behind is no fault


def test_nothing_to_learn_from(tmp_path):
    with pytest.raises(UsageError, match="cannot read the folder"):
        collect(tmp_path / "nowhere")
    (tmp_path / "a.jpg").write_bytes(b"no")
    with pytest.raises(UsageError, match="Not a directory"):
        collect(tmp_path / "a.jpg")
    with pytest.raises(DataSetError, match=r"a\.jpg: not an image") as raised:
        collect(tmp_path)
    assert raised.value.exit_code == 4 and "PNG" in raised.value.hint
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataSetError, match="holds no image that can be used"):
        collect(tmp_path / "empty")


def test_the_same_whatever_the_order_on_disk(mixed, tmp_path):
    first = collect(mixed)
    for turn, seed in enumerate((1, 2)):
        other = tmp_path / f"other{turn}"
        other.mkdir()
        names = sorted(path.name for path in mixed.iterdir())
        np.random.default_rng(seed).shuffle(names)
        for age, name in enumerate(names):
            if (mixed / name).is_dir():
                (other / name).mkdir()
            else:
                shutil.copyfile(mixed / name, other / name)
                os.utime(other / name, (age * 1000, age * 1000))
        again = collect(other)
        assert again.sha256 == first.sha256 and again.files == first.files
        assert [p.sha256 for p in again.photos] == [p.sha256 for p in first.photos]


def test_the_hash_is_of_bytes_captions_and_order(tmp_path):
    path = folder(tmp_path, 3)
    first = collect(path).sha256
    for i in range(3):
        (path / f"{i:02}.png").rename(path / f"x{i}.PNG")
    assert collect(path).sha256 == first
    (path / "x1.txt").write_text("asleep")
    captioned = collect(path).sha256
    assert captioned != first
    (path / "x1.txt").unlink()
    (path / "x0.PNG").rename(path / "y.png")
    assert collect(path).sha256 not in (first, captioned)


def test_names_that_differ_in_case_or_unicode_form_have_one_order(tmp_path):
    names = ["B.png", "a.png", "A.png", "e\u0301.png", "\u00e8.png"]
    for i, name in enumerate(names):
        photo(i).save(tmp_path / name)
    files = [p.file for p in collect(tmp_path).photos]
    assert files == ["A.png", "a.png", "B.png", "\u00e8.png", "\u00e9.png"]


def test_names_cannot_steer_a_terminal(tmp_path):
    photo(0).save(tmp_path / "good.png")
    (tmp_path / "\x1b[2Jred.png").write_bytes(b"")
    (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(b"")
    assert {row.file for row in collect(tmp_path).files} == {"good.png", "�[2Jred.png", "caf�.png"}


def test_links_are_followed_only_within_the_folder(tmp_path):
    path = folder(tmp_path, 2)
    photo(7).save(tmp_path / "outside.png")
    (path / "out.png").symlink_to(tmp_path / "outside.png")
    (path / "up.png").symlink_to("../outside.png")
    (path / "gone.png").symlink_to(path / "nothing.png")
    (path / "round.png").symlink_to(path / "round.png")
    (path / "same.png").symlink_to(path / "00.png")
    (path / "raw").mkdir()
    photo(8).save(path / "raw" / "8.png")
    (path / "inner.png").symlink_to("raw/8.png")
    (tmp_path / "secret.txt").write_text("password")
    (path / "00.txt").symlink_to(tmp_path / "secret.txt")
    (path / "way").symlink_to(tmp_path)
    data = collect(path)
    assert [p.file for p in data.photos] == ["00.png", "01.png", "inner.png"]
    assert data.photos[0].caption is None
    notes = {row.file: row.note for row in data.files}
    outside = "a link to outside the folder"
    assert notes["out.png"] == notes["up.png"] == notes["00.txt"] == notes["way"] == outside
    assert notes["gone.png"] == "a broken link" and notes["same.png"] == "a duplicate of 00.png"
    assert "cannot be read" in notes["round.png"] or notes["round.png"] == "a broken link"
    (tmp_path / "link").symlink_to(path)
    assert collect(tmp_path / "link").sha256 == data.sha256  # the folder itself may be one


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_not_waited_for(tmp_path):
    path = folder(tmp_path, 1)
    os.mkfifo(path / "pipe.png")
    assert rows(collect(path))["pipe.png"].note == "not a file"


def test_bombs_and_other_large_things_are_passed_over_quickly(tmp_path):
    from tests.helpers.png import bomb

    path = folder(tmp_path, 1)
    bomb(path / "bomb.png")
    bomb(path / "wide.png", 9000, 9000)
    frame = Image.new("P", (8, 8))
    frame.save(path / "long.gif", save_all=True, append_images=[frame] * 1000, duration=20)
    with (path / "film.mov").open("wb") as file:
        file.truncate(dataset.MAX_BYTES + 1)
    started = time.perf_counter()
    found = rows(collect(path))
    assert time.perf_counter() - started < 2
    assert found["bomb.png"].note == "too large to be opened safely"
    assert found["wide.png"].note == "too large: 9000x9000"
    assert found["film.mov"].note == "too large: more than 268 MB"
    assert found["long.gif"].note == "too small: 8x8"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_truncated_anywhere_is_listed_never_a_crash(tmp_path, kind):
    path = folder(tmp_path, 1)
    file = io.BytesIO()
    Image.effect_noise((80, 80), 90).convert("RGB").save(file, kind)
    data = file.getvalue()
    lengths = (0, 1, 8, 100, len(data) // 2, len(data) - 1)
    for length in lengths:
        (path / f"cut{length:06}.{kind.lower()}").write_bytes(data[:length])
    found = rows(collect(path))
    assert len(found) == 1 + len(lengths)
    for length in lengths[:5]:
        row = found[f"cut{length:06}.{kind.lower()}"]
        assert not row.used and row.note.startswith(("not an image", "damaged: ")), row


def test_what_was_done_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "MAX_SIDE", 200)
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(0).save(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray(np.arange(48 * 40, dtype=np.uint16).reshape(40, 48) * 30).save(tmp_path / "deep.png")
    photo(1).save(tmp_path / "moving.gif", save_all=True, append_images=[photo(2), photo(3)])
    half = photo(4)
    half.putalpha(Image.linear_gradient("L").resize(half.size))
    half.save(tmp_path / "half.png")
    photo(5, mode="CMYK").save(tmp_path / "print.jpg")
    photo(6, (800, 400)).save(tmp_path / "large.webp")
    photo(7, (10, 4000)).save(tmp_path / "thin.png")
    Image.new("RGBA", (64, 64)).save(tmp_path / "nothing.png")
    (tmp_path / "phone.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (tmp_path / "new.avif").write_bytes(b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf")
    (tmp_path / "film.mp4").write_bytes(b"\0\0\0\x18ftypisom\0\0\0\0isomavc1")
    data = note_enlarged(collect(tmp_path), 60)
    found = rows(data)
    assert {file: (row.size, row.note) for file, row in found.items() if row.used} == {
        "turned.jpg": ("64x96", "rotated by its EXIF orientation"),
        "deep.png": ("48x40", "16 bit, enlarged from 48x40"),
        "moving.gif": ("96x64", "first of 3 frames"),
        "half.png": ("96x64", "transparent parts filled with white"),
        "print.jpg": ("96x64", "converted from CMYK"),
        "large.webp": ("800x400", "reduced to 400x200"),
    }
    assert {file: row.note for file, row in found.items() if not row.used} == {
        "thin.png": "too small: 10x4000",
        "nothing.png": "fully transparent",
        "phone.jpg": "HEIC is not supported, save it as JPEG",
        "new.avif": "AVIF is not supported, save it as JPEG",
        "film.mp4": "not an image that can be read",
    }
    photos = {p.file: p for p in data.photos}
    assert photos["large.webp"].image.size == (400, 200)
    assert all(p.image.mode == "RGB" for p in data.photos)
    alpha = photos["half.png"].alpha
    assert alpha is not None and alpha.mode == "L" and alpha.size == (96, 64)
    assert photos["print.jpg"].alpha is None


def test_captions_in_caption_files(tmp_path):
    """As kohya's trainer reads them. Of two text files of an image, the other one is named."""
    path = folder(tmp_path, 4)
    (path / "00.caption").write_text("a cat on a roof\n")
    (path / "01.CAPTION").write_bytes(b"\xff\xfea\0")
    (path / "02.caption").write_text("not this")
    (path / "02.txt").write_text("this")
    data = collect(path)
    found = rows(data)
    assert [p.caption for p in data.photos] == ["a cat on a roof", None, "this", None]
    assert "00.caption" not in found and "02.txt" not in found
    assert found["01.CAPTION"].note == "a caption that is not UTF-8 text"
    assert found["02.caption"].note == "not used: the caption is in 02.txt"


def test_captions_beside_photos(tmp_path):
    path = folder(tmp_path, 6)
    (path / "00.txt").write_bytes(b"\xef\xbb\xbf\n  a cat\r\n\r\non  a roof \n")
    (path / "01.TXT").write_text("x" * 1500)
    (path / "02.txt").write_bytes(b"\xff\xfea\0")
    (path / "03.txt").write_text(" \n")
    (path / "04.txt").write_text("cafe\u0301", encoding="utf-8")
    (path / "05.text").write_text("not this")
    data = collect(path)
    found = rows(data)
    assert [p.caption for p in data.photos] == ["a cat on a roof", "x" * 1000, None, None, "café", None]
    assert found["01.png"].note == "caption cut to 1,000 characters"
    assert found["02.txt"].note == "a caption that is not UTF-8 text"
    assert found["03.txt"].note == "an empty caption"
    assert not {"00.txt", "01.TXT", "04.txt"} & set(found)
    with pytest.raises(DataSetError, match=r"02\.txt"):
        collect(path, strict=True)


def test_far_too_many_are_refused_before_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "MAX_PHOTOS", 3)
    path = folder(tmp_path, 3)
    assert len(collect(path).photos) == 3
    (path / "99.jpg").write_bytes(b"never looked at")
    with pytest.raises(DataSetError, match="more than 3 images") as raised:
        collect(path)
    assert raised.value.hint


def test_encoded_shapes_views_and_scale(mini, tmp_path):
    data, side = collect(folder(tmp_path, 2)), mini.native_size
    channels, height, width = latents.shape(mini, side, side)
    one = encode(mini, data, side=side)
    assert one.mean.shape == one.std.shape == (2, 1, channels, height, width)
    assert one.mean.dtype == one.std.dtype == torch.float32 and one.mask is None
    many = encode(mini, data, side=side, crops=3, flip=True, alpha_mask=True)
    assert many.mean.shape == (2, 6, channels, height, width)
    assert many.mask is not None and many.mask.shape == (2, 6, 1, height, width)
    assert torch.equal(many.mask, torch.ones_like(many.mask)) and (many.std > 0).all()


def test_the_scaling_factor_is_in_mean_and_std(families, tmp_path):
    from diffusekit import models

    model = models.load(str(families["sd1"]), "cpu")
    scale = model.vae.config.scaling_factor
    assert scale != 1
    data = collect(folder(tmp_path, 1))
    found = encode(model, data, side=model.native_size)
    pixels = dataset.images.to_tensor(dataset.images.crop_square(data.photos[0].image, model.native_size))
    with torch.no_grad():
        known = model.vae.encode(pixels[None]).latent_dist
    torch.testing.assert_close(found.mean[0, 0], known.mean[0] * scale)
    torch.testing.assert_close(found.std[0, 0], known.std[0] * scale)


@pytest.mark.slow
def test_a_photos_latents_depend_on_nothing_else(mini, tmp_path):
    path = folder(tmp_path, 3)
    options = {"side": mini.native_size, "crops": 2, "flip": True}
    three = encode(mini, collect(path), **options, seed=5)
    again = encode(mini, collect(path), **options, seed=5)
    assert torch.equal(three.mean, again.mean) and torch.equal(three.std, again.std)
    (path / "02.png").unlink()
    two = encode(mini, collect(path), **options, seed=5)
    assert torch.equal(two.mean, three.mean[:2])
    more = encode(mini, collect(path), side=mini.native_size, crops=3, flip=True, seed=5)
    assert torch.equal(more.mean[:, :4], two.mean)  # crop 0 and 1 stay when there is a third
    other = encode(mini, collect(path), **options, seed=6)
    assert not torch.equal(other.mean, two.mean)
    assert not torch.equal(two.mean[:, 0], two.mean[:, 2])  # two crops of a wide photo differ


def test_flips_are_mirror_images(mini, tmp_path):
    path = folder(tmp_path, 1)
    flipped = tmp_path / "flipped"
    flipped.mkdir()
    with Image.open(path / "00.png") as picture:
        picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(flipped / "00.png")
    ours = encode(mini, collect(path), side=mini.native_size, flip=True)
    theirs = encode(mini, collect(flipped), side=mini.native_size, flip=True)
    torch.testing.assert_close(ours.mean[:, 1], theirs.mean[:, 0], atol=2e-2, rtol=0)
    assert (ours.mean[:, 1] - ours.mean[:, 0]).abs().max() > 0.1


def test_masks_follow_transparency_crops_and_flips(mini, tmp_path):
    side = mini.native_size
    picture = photo(0, (side, side))
    alpha = Image.new("L", (side, side), 0)
    alpha.paste(255, (0, 0, side // 2, side))  # the left half is opaque
    picture.putalpha(alpha)
    picture.save(tmp_path / "a.png")
    photo(1, (side, side)).save(tmp_path / "b.png")
    mask = encode(mini, collect(tmp_path), side=side, flip=True, alpha_mask=True).mask
    assert mask is not None
    half = mask.shape[-1] // 2
    left, right = mask[0, 0], mask[0, 1]
    assert left[..., :half].min() == 1 and left[..., half:].max() == 0
    assert torch.equal(right, left.flip(-1))
    assert mask[1].min() == 1  # a photo without transparency counts everywhere
    assert encode(mini, collect(tmp_path), side=side).mask is None


def test_never_a_squash(mini, tmp_path, monkeypatch):
    """A circle in a wide and in a tall photo stays round in what the VAE sees, and right side up."""
    side = mini.native_size
    for name, size in (("wide.png", (400, 160)), ("tall.png", (160, 400))):
        picture = Image.new("RGB", size, "white")
        x, y = size[0] // 2, size[1] // 2
        ImageDraw.Draw(picture).ellipse((x - 50, y - 50, x + 50, y + 50), fill="black")
        picture.save(tmp_path / name)
    seen = []
    encoder = mini.vae.encode
    monkeypatch.setattr(mini.vae, "encode", lambda x: seen.append(x) or encoder(x))
    encode(mini, collect(tmp_path), side=side)
    assert len(seen) == 2
    for pixels in seen:
        assert pixels.shape == (1, 3, side, side) and pixels.min() >= -1 and pixels.max() <= 1
        dark = (pixels[0, 0] < 0).nonzero()
        high, wide = (dark.max(0).values - dark.min(0).values + 1).tolist()
        assert abs(high - wide) <= 1 and abs(high - side * 100 / 160) <= 2


def test_a_side_the_model_cannot_draw(mini, tmp_path):
    with pytest.raises(UsageError, match="multiple"):
        encode(mini, collect(folder(tmp_path, 1)), side=mini.native_size + 1)
