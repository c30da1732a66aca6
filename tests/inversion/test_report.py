"""The report of a run: one file that loads nothing and runs nothing."""

import base64
import io
import math
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from diffusekit import charts
from diffusekit.errors import DiskError
from diffusekit.inversion import report
from diffusekit.inversion.dataset import FileStatus
from diffusekit.inversion.run_folder import INIT_STEP, RunFolder, RunLog

EVIL = "<script>alert('x')</script>\"><img src=http://evil.example/x onerror=alert(1)>"
VOID = {"meta", "img"}


class Page(HTMLParser):
    """Every element with its attributes and the text below it; notes what is not closed."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def log(steps=1000, every=100):
    yield {"step": 0, "baseline": {"reconstruction": 0.55, "editability": 0.29, "pairwise": 0.83}}
    for step in range(1, steps + 1):
        entry = {
            "step": step,
            "loss": 0.2,
            "smoothed": 0.25 + 0.1 * math.exp(-step / 200),
            "learning_rate": 0.005,
            "norm": 0.4,
            "moved": step / steps,
            "nearest": ["cat", "dog"],
        }
        if step % every == 0:
            entry |= {"reconstruction": 0.5 + step / 4000, "editability": 0.3 - step / 20000}
        if step in (300, 700):
            entry["best"] = True
        yield entry


def rendered(**changes):
    given = {
        "title": "my-cat",
        "token": "<my-cat>",
        "settings": {"model": "mini", "learning_rate": 0.005, "init": None, "prompts": ["a", "b"]},
        "files": [FileStatus("00.jpg", "768x512", True, "16 bit"), FileStatus("a.txt", "", False, "not an image")],
        "log": log(),
        "strip": Image.effect_noise((640, 300), 80).convert("RGB"),
        "photos": [Image.effect_noise((300, 200), 60).convert("RGB")] * 3,
        "notes": ["Scores by a small CLIP."],
    } | changes
    text = report.render_report(**given | {"log": RunLog(tuple(given["log"]))})
    return text, Page(text)


def pictures(found):
    return [
        Image.open(io.BytesIO(base64.b64decode(image["src"].partition("base64,")[2]))) for image in found.all("img")
    ]


def test_one_file_that_needs_nothing_else():
    text, found = rendered()
    assert text.startswith("<!doctype html>")
    assert not {"script", "link", "iframe", "object", "embed", "base"} & {t for t, _ in found.elements}
    for _, attributes in found.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "href"]
        assert attributes.get("src", "data:image/").startswith("data:image/")
    assert "http:" not in text and "https:" not in text and "url(" not in text and "@import" not in text
    (policy,) = [m["content"] for m in found.all("meta") if "http-equiv" in m]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert any(m.get("name") == "viewport" for m in found.all("meta"))
    assert "prefers-color-scheme: dark" in text and found.all("html")[0]["lang"] == "en"
    assert all(image["alt"] for image in found.all("img"))
    assert all(chart["role"] == "img" for chart in found.all("svg"))
    assert len(found.all("title")) == 1 + len(found.all("svg"))


def test_the_strip_and_the_photos_are_inside():
    strip = Image.effect_noise((640, 300), 80).convert("RGB")
    _, found = rendered(strip=strip)
    inside = pictures(found)
    assert len(inside) == 4 and inside[0].format == "PNG"
    assert np.array_equal(np.asarray(inside[0]), np.asarray(strip))
    assert all(photo.size == (256, 171) for photo in inside[1:])
    large = Image.new("RGB", (3000, 1000), "red")
    _, found = rendered(strip=large, photos=[strip] * 30)
    inside = pictures(found)
    assert inside[0].format == "JPEG" and inside[0].size == (3000, 1000)
    assert len(inside) == 1 + report.MAX_PHOTOS and "and 6 more" in found.texts


def test_everything_is_escaped():
    _, found = rendered(
        title=EVIL,
        token=EVIL,
        notes=[EVIL],
        settings={EVIL: EVIL, "list": [EVIL]},
        files=[FileStatus(EVIL, EVIL, True, EVIL)],
        log=[*log(200), {"step": 201, "reconstruction": 0.6, "nearest": [EVIL], "best": True}],
    )
    assert not found.all("script")
    assert len(found.all("img")) == 4 and all("onerror" not in image for image in found.all("img"))
    assert sum(EVIL in text for text in found.texts) >= 10


def points(polyline):
    return [tuple(map(float, pair.split(","))) for pair in polyline["points"].split()]


def test_curves_go_where_the_numbers_go():
    _, found = rendered()
    curves = [points(polyline) for polyline in found.all("polyline")]
    assert len(found.all("svg")) == 3 and len(curves) == 5
    for curve in curves:
        assert 2 <= len(curve) <= charts.MAX_POINTS
        assert all(0 <= x <= charts.WIDTH and 0 <= y <= charts.HEIGHT for x, y in curve)
        assert [x for x, _ in curve] == sorted(x for x, _ in curve)
    loss, reconstruction, editability, moved, norm = curves
    assert loss[0][1] < loss[-1][1]  # falling; y points down
    assert reconstruction[0][1] > reconstruction[-1][1] and editability[0][1] < editability[-1][1]
    assert moved[0][1] > moved[-1][1] and len({y for _, y in norm}) == 1
    init, photos, init_editability = (float(line["y1"]) for line in found.all("line") if line["class"] == "level")
    assert photos < init < init_editability  # 0.83, 0.55 and 0.29; y points down
    assert len([line for line in found.all("line") if line["class"] == "marker"]) == 3
    assert found.texts.count("700") == 3  # the best step
    assert "700 (best)" in found.texts and "300" in found.texts


def test_a_run_without_scores_or_without_anything():
    kept = {"step", "smoothed", "norm", "moved", "nearest"}
    bare = [{key: entry[key] for key in entry if key in kept} for entry in log(50)]
    _, found = rendered(log=bare[1:])
    assert len(found.all("svg")) == 2 and "cat, dog" in found.texts
    broken = [{"step": 1, "smoothed": math.nan, "loss": None}, {"step": 2, "smoothed": math.inf}]
    for lines in ([], broken, [{"step": 0, "baseline": None}]):
        text, found = rendered(log=lines, files=[], photos=[], notes=[], settings={})
        assert not found.all("svg") and "nan" not in text.lower().partition("base64")[0]
    _, found = rendered(log=[{"step": 5, "smoothed": 0.3}])  # one point is still to be seen
    (curve,) = found.all("polyline")
    assert len(set(points(curve))) == 2


def test_the_report_of_a_long_run_stays_small():
    text, found = rendered(log=log(20_000))
    assert max(len(points(polyline)) for polyline in found.all("polyline")) <= charts.MAX_POINTS
    assert len(text) < 1_000_000


def test_what_cannot_be_written_leaves_the_old_report(tmp_path, monkeypatch):
    run = RunFolder(tmp_path, "owl")
    run.open(tmp_path / "pictures", resume=False, overwrite=False)
    for step in (INIT_STEP, 10):
        run.save_images(step, [plain("red"), plain("lime")])

    def write(title):
        report.write_report(run, token=title, prompts=["a", "b"], settings={}, files=[], photos=[plain("blue")])

    write("first")
    text = run.report.read_bytes()
    assert b"first" in text and run.strip.is_file()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(DiskError, match="No space left"):
        write("another")
    assert run.report.read_bytes() == text
    assert sorted(path.name for path in run.path.iterdir() if not path.name.startswith(".")) == [
        "index.html",
        "previews",
        "strip.webp",
    ]
    run.close()


COLORS = ["red", "lime", "blue", "yellow", "cyan", "magenta"]


def plain(color, size=(64, 64)):
    return Image.new("RGB", size, color)


def boxes(sheet, color):
    """Where a plain color lies: (left, top, right, bottom)."""
    same = np.all(np.asarray(sheet) == plain(color).getpixel((0, 0)), axis=-1)
    high, wide = np.nonzero(same)
    return wide.min(), high.min(), wide.max() + 1, high.max() + 1


def test_the_strip_has_a_column_for_each_step_and_a_row_for_each_prompt():
    labels = ["a photo of S*", "S* " + "very " * 30 + "tired"]
    columns = [
        ("init", [plain("red"), plain("lime")]),
        ("100", [plain("blue"), plain("yellow")]),
        ("1,000", [plain("cyan"), plain("magenta")]),
    ]
    sheet = report.draw_strip(columns, labels)
    found = {color: boxes(sheet, color) for color in COLORS}
    for left, top, right, bottom in found.values():
        assert (right - left, bottom - top) == (64, 64)
    columns = [(found[a][0], found[b][0]) for a, b in zip(COLORS[::2], COLORS[1::2], strict=True)]
    assert all(a == b for a, b in columns) and columns == sorted(columns)
    assert all(found[a][3] < found[b][1] for a, b in zip(COLORS[::2], COLORS[1::2], strict=True))
    ink = np.asarray(sheet.convert("L")) < 100
    assert ink[: found["red"][1], found["blue"][0] : found["blue"][2]].any()  # the step's title
    margin = ink[:, : found["red"][0] - 2]
    for color in ("red", "lime"):
        assert margin[found[color][1] : found[color][3]].any()  # the prompt
    assert not ink[:, found["red"][0] - 4 : found["red"][0]].any()  # and it keeps to its margin


def test_a_strip_of_large_tall_images():
    sheet = report.draw_strip([("5", [plain("red", (512, 1024))])], ["S*"])
    left, top, right, bottom = boxes(sheet, "red")
    assert (right - left, bottom - top) == (128, 256)
    names = report.draw_strip([("5", [plain("red")])], ["<" + "x" * 500 + ">"])
    assert boxes(names, "red")[2] - boxes(names, "red")[0] == 64
