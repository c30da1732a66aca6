"""Uploaded training sets: what is stored, under which names, and for how long."""

import os
from pathlib import Path

import pytest
from PIL import Image

from diffusekit.errors import DataSetError, UsageError
from diffusekit.inversion.dataset import collect
from diffusekit.server.storage import uploads


def upload(rules, files):
    return uploads.store(Path(rules.state), files)


def test_uploaded_images_are_written_again_under_new_names(tmp_path, rules):
    files = []
    for i, name in enumerate(["a.JPG", "b <img src=x>.png", "c.png"]):
        files.append(tmp_path / name)
        exif = Image.Exif()
        exif[0x0112], exif[0x010E] = 6, "where I live"
        kind = "JPEG" if name.endswith("JPG") else "PNG"
        Image.new("RGB", (40, 30), (80 * i, 0, 0)).save(files[-1], kind, exif=exif)
    (tmp_path / "c.txt").write_text("a {} on\na sofa")
    (tmp_path / "evil.html").write_text("<script>1</script>")
    made = upload(rules, [*files, tmp_path / "c.txt", tmp_path / "evil.html"])
    assert sorted(p.name for p in made.folder.iterdir()) == ["00.png", "01.png", "02.png", "02.txt"]
    for path in made.folder.glob("*.png"):
        with Image.open(path) as picture:
            assert picture.size == (30, 40) and not picture.getexif()
        assert b"where I live" not in path.read_bytes()
    statuses = {status.file: status for status in made.files}
    assert statuses["a.JPG"].used and "rotated" in statuses["a.JPG"].note and not statuses["evil.html"].used
    assert (
        made.captions
        == ("", "", "a {} on a sofa")
        == tuple(photo.caption or "" for photo in collect(made.folder).photos)
    )
    assert len(list((Path(rules.state) / "pictures").iterdir())) == 1  # nothing is left of the staging


def test_captions_of_both_endings_are_kept(tmp_path, rules):
    for i, name in enumerate("abc"):
        Image.new("RGB", (40, 30), (80 * i, 0, 0)).save(tmp_path / f"{name}.png")
    (tmp_path / "a.caption").write_text("a {} on a sofa")
    (tmp_path / "b.txt").write_text("a {} at home")
    made = upload(rules, sorted(tmp_path.iterdir()))
    assert made.captions == ("a {} on a sofa", "a {} at home", "")


def test_errors_name_the_uploaded_files(tmp_path, rules):
    for name in ("one.png", "two.png", "three.png"):
        Image.new("RGB", (30, 30), "red").save(tmp_path / name)
    with pytest.raises(DataSetError, match=r"1 image can be used.*a duplicate of one\.png"):
        upload(rules, sorted(tmp_path.glob("*.png")))
    assert not list((Path(rules.state) / "pictures").iterdir())


def test_other_captions_create_another_set(rules, owl):
    made = upload(rules, owl)
    state = Path(rules.state)
    assert uploads.with_captions(state, made.id, made.captions) == made.id
    other = uploads.with_captions(state, made.id, ["a {} at home"])
    assert other != made.id
    assert [p.caption for p in collect(uploads.find_folder(state, other)).photos] == [
        "a {} at home",
        None,
        None,
        None,
        None,
    ]
    assert collect(made.folder).photos[0].caption == made.captions[0]


def test_old_sets_that_no_job_names_are_deleted(rules, owl):
    kept, old, new = (upload(rules, owl) for _ in range(3))
    for each in (kept, old):
        os.utime(each.folder, (1, 1))
    uploads.prune(Path(rules.state), {kept.id})
    assert kept.folder.exists() and new.folder.exists() and not old.folder.exists()


@pytest.mark.parametrize("number", ["", "..", "../../etc", "0" * 16, "/etc", "0123456789abcdeg"])
def test_sets_are_found_only_by_their_ids(rules, number):
    with pytest.raises(UsageError, match="pictures"):
        uploads.find_folder(Path(rules.state), number)
