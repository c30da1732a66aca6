"""The images that are served, and the files that never are."""

import os
from pathlib import Path

import pytest
from PIL import Image

from diffusekit import metadata
from diffusekit.server.errors import ImageForbidden, ImageNotFound
from diffusekit.server.storage.gallery import Gallery
from diffusekit.settings import GenerateSettings
from tests.helpers.server import client_of, opened

STRANGE = [
    "..",
    "../secret.png",
    "../../etc/passwd",
    "/etc/passwd",
    "a/../../secret.png",
    "a\\b.png",
    "C:x.png",
    "x:y.png",
    "nul\0.png",
    ".hidden.png",
    ".diffusekit/jobs.sqlite",
    "a/.b/c.png",
    "",
    "a//b.png",
    "./a.png",
    "notes.txt",
    "page.html",
    "x.svg",
    "x.js",
    ".env",
    "x" * 600 + ".png",
    "<script>.png",
    "a|b.png",
]


def picture(path: str, prompt: str = "a red cat") -> Path:
    record = metadata.Record(settings=GenerateSettings(prompt=prompt, seed=7))
    return metadata.save(Image.new("RGB", (8, 8)), Path(path), record)


def test_images_are_found_by_words_newest_first():
    for i, prompt in enumerate(["a red cat", "a blue dog", "a red dog"]):
        os.utime(picture(f"outputs/day/{i}.png", prompt), (i, i))
    Image.new("RGB", (8, 8)).save("outputs/foreign.png")
    Path("outputs/broken.png").write_bytes(b"\x89PNG")
    Path("outputs/notes.txt").write_text("no picture")
    picture("outputs/.hidden/x.png")
    gallery = Gallery(Path("outputs"))
    assert {e.path for e in gallery.search()} == {
        "day/0.png",
        "day/1.png",
        "day/2.png",
        "foreign.png",
        "broken.png",
    }
    assert [e.path for e in gallery.search("RED")] == ["day/2.png", "day/0.png"]
    assert [e.path for e in gallery.search("dog red")] == ["day/2.png"]
    assert [e.path for e in gallery.search("red", limit=1, offset=1)] == ["day/0.png"]
    found = gallery.search("blue")[0].settings
    assert found is not None and found["seed"] == 7 and "device" not in found


def test_the_gallery_follows_the_folder():
    gallery = Gallery(Path("outputs"))
    assert gallery.search() == []
    path = picture("outputs/a.png", "one")
    assert gallery.search("one")
    path.unlink()
    assert gallery.search() == []
    picture("outputs/a.png", "two")
    assert gallery.search("two") and not gallery.search("one")


@pytest.mark.parametrize("name", STRANGE)
def test_paths_that_lead_elsewhere_are_refused_whether_or_not_they_exist(name):
    picture("outputs/a.png")
    picture("secret.png")
    with pytest.raises(ImageForbidden):
        Gallery(Path("outputs")).path_of(name)


def test_links_that_lead_out_are_refused_and_not_listed():
    picture("outputs/a.png")
    Path("outputs/out.png").symlink_to(picture("secret.png").resolve())
    Path("outputs/loop.png").symlink_to("loop.png")
    gallery = Gallery(Path("outputs"))
    assert [e.path for e in gallery.search()] == ["a.png"]
    with pytest.raises(ImageForbidden):
        gallery.path_of("out.png")
    with pytest.raises(ImageNotFound):
        gallery.path_of("loop.png")


def test_over_http():
    picture("outputs/day/a.png")
    Path("secret.png").write_bytes(b"secret")
    with opened() as jobs:
        client = client_of(jobs)
        got = client.get("/outputs/day/a.png")
        assert got.status_code == 200 and got.headers["content-type"] == "image/png"
        assert got.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in got.headers["content-security-policy"]
        assert client.get("/outputs/day/b.png").status_code == 404
        for name in (
            "%2e%2e/secret.png",
            "%2e%2e%2fsecret.png",
            "..%5csecret.png",
            ".env",
            "a.txt",
        ):
            refused = client.get(f"/outputs/{name}")
            assert refused.status_code == 403, name
            assert b"secret" not in refused.content
        many = ",".join(f"{i}-{i}" for i in range(10_000))
        ranged = client.get("/outputs/day/a.png", headers={"Range": f"bytes={many}"})
        assert len(ranged.content) < 2_000_000
