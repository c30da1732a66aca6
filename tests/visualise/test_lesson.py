"""The lesson: one self-contained file with every step and the numbers of the trace."""

import base64
import io
import json
import re
import shlex
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from diffusekit.errors import UsageError
from diffusekit.pipeline import stream
from diffusekit.settings import GenerateSettings
from diffusekit.visualise import lesson
from diffusekit.visualise.lesson import html, payload, render
from diffusekit.visualise.lesson.page import SCRIPTS, script_json
from diffusekit.visualise.trace import TraceRecorder

EVIL = "<script>alert(1)</script>\"><img src=x onerror=alert(1)> </script> & 'q'"
VOID = {"meta", "img", "line", "polyline", "link", "input", "rect", "polygon", "path", "br"}


class Page(HTMLParser):
    """Every element with its attributes; texts outside of scripts; complains of what is not closed."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.texts, self.scripts = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"an attribute stands twice in {tag} {attrs}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        (self.scripts if self.open and self.open[-1] == "script" else self.texts).append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def data(self):
        return json.loads(self.scripts[0])


def traces_of(prompts, **settings):
    recorder = TraceRecorder(stream(prompts, **{"seed": 3, "steps": 4, "device": "cpu"} | settings))
    for _ in recorder:
        pass
    return recorder.traces


def maps_of(trace):
    """Shares that are known: word n of step s has n + s + 1 parts at every place but one."""
    words = ("start", *trace.prompt.split(), "end")
    maps = torch.ones(len(trace.steps), len(words), 4, 4)
    maps += torch.arange(len(words))[None, :, None, None]
    maps[:, 1, 2, 3] += 30
    return SimpleNamespace(words=words, maps=maps / maps.sum(1, keepdim=True))


@pytest.fixture(scope="module")
def plain():
    """The page of one prompt in four steps, with maps: (trace, maps, figure, text, page)."""
    (trace,) = traces_of(["a red car"])
    maps = maps_of(trace)
    figure = render([trace], attention_maps=[maps])
    text = figure.html()
    return SimpleNamespace(trace=trace, maps=maps, figure=figure, text=text, page=Page(text))


def opened(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.partition("base64,")[2])))


def test_the_page_is_one_self_contained_file(plain):
    page, text = plain.page, plain.text
    assert text.startswith("<!doctype html>") and page.all("html")[0]["lang"] == "en"
    (policy,) = [m["content"] for m in page.all("meta") if "http-equiv" in m]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")
    assert not {"iframe", "object", "embed", "base", "form", "video"} & {t for t, _ in page.elements}
    assert all("src" not in script for script in page.all("script"))
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")], tag
        assert attributes.get("src", "data:").startswith("data:")
        assert attributes.get("href", "#").startswith(("#", "data:"))
    assert "http:" not in text and "https:" not in text
    assert "url(" not in text and "@import" not in text and "import(" not in text
    assert any(m.get("name") == "viewport" for m in page.all("meta"))
    assert "prefers-color-scheme: dark" in text and "prefers-reduced-motion" in text


def test_the_final_image_and_the_explanations_are_there_without_a_script(plain):
    page = plain.page
    (main,) = [image for image in page.all("img") if image.get("data-frame") == "main"]
    found = np.asarray(opened(main["src"]).convert("RGB"), dtype=float)
    wanted = np.asarray(plain.trace.result.image, dtype=float)
    assert found.shape == wanted.shape and np.abs(found - wanted).mean() < 6
    assert "a red car" in main["alt"]
    bodies = [a for t, a in page.elements if t == "div" and a.get("class") == "body"]
    assert len(bodies) == 8 and not any("hidden" in body for body in bodies)
    text = " ".join(page.texts)
    for words in ("tokenizer", "text encoder", "U-Net", "scheduler", "VAE", "Guidance"):
        assert words in text
    for words in ("77 × 256", "128 × 128", "DPM++ 2M", "A model made this.", "1,003"):
        assert words in text, words


def test_everything_can_be_reached_and_is_named(plain):
    page = plain.page
    names = [a["id"] for _, a in page.elements if "id" in a]
    assert len(names) == len(set(names))
    unfolding = [b for b in page.all("button") if "aria-controls" in b]
    assert len(unfolding) == 16
    assert all(b["aria-controls"] in names and b["aria-expanded"] == "true" for b in unfolding)
    for _, attributes in page.elements:
        for key in ("aria-labelledby", "aria-describedby", "for"):
            assert set(attributes.get(key, "").split()) <= set(names)
    (slider,) = [i for i in page.all("input") if i["type"] == "range"]
    assert slider["aria-label"] and (slider["min"], slider["max"], slider["value"]) == (
        "0",
        "4",
        "4",
    )
    assert all("alt" in image for image in page.all("img"))
    for i, (tag, attributes) in enumerate(page.elements):
        if tag == "svg":  # named by a label or by its title
            assert attributes.get("aria-hidden") or attributes.get("aria-label") or page.elements[i + 1][0] == "title"


def test_every_step_is_there_and_its_images_are_those_of_the_trace(plain):
    (run,) = plain.page.data["runs"]
    kinds = {"noised", "denoised", "noise", "without", "with", "difference"}
    assert set(run["frames"]) == kinds | {"image", "strip"}
    assert all(len(run["frames"][kind]) == 4 for kind in kinds)
    steps = plain.trace.steps
    for kind, tensors in (
        ("noised", [m.x_t_unit for m in steps]),
        ("denoised", [m.x0 for m in steps]),
        ("without", [m.x0_uncond for m in steps]),
        ("with", [m.x0_cond for m in steps]),
        ("noise", [m.eps for m in steps]),
    ):
        for uri, wanted in zip(run["frames"][kind], plain.trace.decode(tensors), strict=True):
            found = np.asarray(opened(uri).convert("RGB"), dtype=float)
            assert np.abs(found - np.asarray(wanted, dtype=float)).mean() < 16, kind
    assert opened(run["frames"]["difference"][0]).size == (16, 16)
    first, last = (np.asarray(opened(run["frames"]["noised"][i]), dtype=float) for i in (0, -1))
    assert np.abs(first - last).mean() > 5


def test_the_numbers_are_those_of_the_trace(plain):
    (run,) = plain.page.data["runs"]
    assert len(run["numbers"]) == 5
    for found, step in zip(run["numbers"], plain.trace.steps, strict=False):
        assert step.numbers().items() <= found.items()
        assert found["alpha"] == step.alpha
        assert np.allclose(found["alpha_bar"], step.alpha**2)
    ways = [(n["next_alpha"], n["next_sigma"]) for n in run["numbers"][:4]]
    assert ways == [*((m.alpha, m.sigma) for m in plain.trace.steps[1:]), (1.0, 0.0)]
    assert run["numbers"][4]["sigma"] == 0 and run["numbers"][4]["snr"] is None
    rows = re.findall(r"<tr data-row=\"\d+\">(.*?)</tr>", plain.text)
    cells = [re.findall(r"<td>(.*?)</td>", row) for row in rows]
    assert [(row[0], row[1]) for row in cells] == [(str(m.index + 1), str(m.timestep)) for m in plain.trace.steps]
    for row, step in zip(cells, plain.trace.steps, strict=True):
        assert float(row[3]) == pytest.approx(step.sigma, rel=1e-3)
        assert float(row[8]) == pytest.approx(step.numbers()["rms_guidance"], rel=1e-2)
    assert plain.figure.numbers["runs"][0]["steps"] == [m.numbers() for m in plain.trace.steps]
    json.dumps(plain.figure.numbers, allow_nan=False)


def test_latents_and_maps_can_be_read_back(plain):
    (run,) = plain.page.data["runs"]
    packed, steps = run["latents"], plain.trace.steps
    shape = (5, packed["channels"], packed["height"], packed["width"])
    assert shape == (5, *plain.trace.steps[0].x_t.shape)
    for kind, wanted in (
        ("noised", [m.x_t_unit for m in steps]),
        ("denoised", [m.x0.float() for m in steps]),
    ):
        data = np.frombuffer(base64.b64decode(packed[kind]), np.uint8).reshape(shape)
        found = (data / 127.5 - 1) * packed["most"]
        wanted = torch.stack([*wanted, steps[-1].x_next.float()]).numpy()
        assert np.abs(found - wanted).max() <= packed["most"] / 255 * 1.01
    attention, maps = run["attention"], plain.maps.maps
    assert attention["words"] == ["start", "a", "red", "car", "end"]
    data = np.frombuffer(base64.b64decode(attention["maps"]), np.uint8).reshape(5, 5, 4, 4)
    shares = data / 255 * np.array(attention["most"])[..., None, None]
    wanted = torch.cat([maps, maps.mean(0, keepdim=True)]).numpy()
    assert np.allclose(shares, wanted, atol=0.004)
    assert np.allclose(shares.sum(1), 1, atol=0.01)
    assert np.allclose(np.sum(attention["share"], 1), 1, atol=1e-3)
    assert np.unravel_index(data[0, 1].argmax(), (4, 4)) == (2, 3)


@pytest.mark.slow
def test_the_next_latents_of_ddim_are_what_the_page_says():
    (trace,) = traces_of(["a red car"], sampler="ddim", steps=3)
    page = Page(render([trace]).html())
    assert "x<sub>next</sub></span> = " in render([trace]).html()
    (run,) = page.data["runs"]
    for found, step in zip(run["numbers"], trace.steps, strict=False):
        said = found["next_alpha"] * step.x0.float() + found["next_sigma"] * step.eps.float()
        if step.index < 2:  # the last step ends at the first trained level, not at none
            # all four are kept in half precision, of values up to 7
            assert torch.allclose(said, step.x_next.float(), rtol=0.005, atol=0.01)
    assert run["attention"] is None and "data-word" not in "".join(str(a) for _, a in page.elements)


@pytest.mark.slow
def test_everything_is_escaped():
    traces = traces_of([EVIL, "--a red car"], steps=2, negative_prompt=EVIL)
    text = render(traces, attention_maps=[maps_of(trace) for trace in traces]).html()
    page = Page(text)
    assert len(page.all("script")) == 2 and not any("onerror" in a for _, a in page.elements)
    assert all(image.get("src") != "x" for image in page.all("img"))
    assert text.count("</script>") == 2
    assert page.data["runs"][0]["prompt"] == EVIL
    assert sum(EVIL in words for words in page.texts) >= 3
    code = "".join(page.scripts[1])
    assert "alert(1)" not in code


def test_json_in_a_script_can_neither_close_it_nor_break_it():
    values = ["</script>", "<!--", "\u2028", "&amp;", "ü"]
    text = script_json(values)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == values


@pytest.mark.slow
def test_two_prompts_start_from_the_same_noise():
    traces = traces_of(["a red car", "a blue house"])
    figure = render(traces, attention_maps=[maps_of(trace) for trace in traces])
    page = Page(figure.html())
    one, two = page.data["runs"]
    assert one["frames"]["noised"][0] == two["frames"]["noised"][0]
    assert one["frames"]["image"] != two["frames"]["image"]
    assert len([i for i in page.all("img") if i.get("data-frame") == "main"]) == 2
    assert [run["prompt"] for run in figure.numbers["runs"]] == ["a red car", "a blue house"]


def test_the_command_makes_the_same_settings_again(plain):
    def again(text):
        words = shlex.split(text)
        assert words[:3] == ["diffusekit", "visualise", "lesson"] and words[-2:] == [
            "-o",
            "lesson.html",
        ]
        return words[3:-2]

    (code,) = re.findall(r'<code id="command"[^>]*>(.*?)</code>', plain.text)
    assert again(code.replace("&#x27;", "'")) == ["a red car", "--steps", "4", "--seed", "3"]
    (trace,) = traces_of(["it's"], steps=2, guidance_scale=2.5, sampler="euler", negative_prompt="a b", width=64)
    figure = render([trace])
    (code,) = re.findall(r'<code id="command"[^>]*>(.*?)</code>', figure.html())
    found = again(code.replace("&#x27;", "'").replace("&quot;", '"'))
    assert found[0] == "it's"
    given = dict(zip(found[1::2], found[2::2], strict=True))
    assert given == {
        "--negative": "a b",
        "--steps": "2",
        "--guidance": "2.5",
        "--sampler": "euler",
        "--seed": "3",
        "--width": "64",
    }
    assert {"steps", "sampler", "width"} <= set(GenerateSettings.model_fields)


def test_without_guidance_the_page_does_not_mention_it():
    (trace,) = traces_of(["a red car"], guidance_scale=1, steps=2)
    page = Page(render([trace]).html())
    (run,) = page.data["runs"]
    assert not {"without", "with", "difference"} & set(run["frames"])
    assert not [a for _, a in page.elements if a.get("id") == "layer-guidance"]
    assert "rms_guidance" not in run["numbers"][0]


@pytest.mark.slow
def test_of_a_long_run_evenly_spaced_steps_are_shown(monkeypatch):
    monkeypatch.setattr(payload, "MAX_STEPS", 4)
    (trace,) = traces_of(["a red car"], steps=10)
    page = Page(render([trace], attention_maps=[maps_of(trace)]).html())
    (run,) = page.data["runs"]
    steps = [numbers["step"] for numbers in run["numbers"]]
    assert steps == [1, 4, 7, 10, 10] and len(run["frames"]["noised"]) == 4
    assert "(4 of them are shown)" in " ".join(page.texts)
    assert run["numbers"][0]["next_alpha"] == trace.steps[1].alpha


@pytest.mark.slow
def test_the_page_of_a_long_prompt_shows_what_was_cut_off():
    (trace,) = traces_of(["a red car " * 40], steps=2)
    page = Page(render([trace]).html())
    text = " ".join(page.texts)
    assert "The model never saw" in text and "All positions are used" in text


def test_a_random_model_with_other_widths_and_another_prediction(families):
    figure = lesson("a cat", model=str(families["sd1"]), steps=2, seed=1, device="cpu")
    page = Page(figure.html())
    text = " ".join(page.texts)
    assert "77 × 32 numbers" in text and "the noise" in text and "called v" not in text
    assert page.data["prediction"] == "epsilon"
    assert page.data["runs"][0]["latents"]["height"] == 8


def test_only_one_or_two_prompts():
    with pytest.raises(UsageError, match="one or two prompts"):
        lesson(["a", "b", "c"])
    with pytest.raises(UsageError):
        lesson([])


def test_numbers_in_tables_have_four_digits():
    assert [html.format_digits(x) for x in (7, 1234, 0.5, 0.00002227, float("inf"))] == [
        "7",
        "1,234",
        "0.5",
        "2.23e-05",
        "∞",
    ]


def test_files_of_the_page_stay_small():
    for path in [
        *html.HERE.rglob("*.js"),
        *html.HERE.rglob("*.css"),
        *html.HERE.rglob("*.html"),
    ]:
        assert path.read_text().count("\n") <= 400, path
    assert {p.stem for p in (html.HERE / "script").glob("*.js")} == set(SCRIPTS)


@pytest.mark.slow
def test_the_command_line_writes_a_page_under_its_size(tmp_path, capsys):
    from diffusekit.cli.main import run

    words = ["visualise", "lesson", "a red car on grass", "--seed", "0", "-q", "--device", "cpu"]
    assert run([*words, "-o", "lesson.html"]) == 0, capsys.readouterr().err
    assert capsys.readouterr().out.strip() == "lesson.html"
    size = (tmp_path / "lesson.html").stat().st_size
    assert 100_000 < size < 2_000_000
    (found,) = Page((tmp_path / "lesson.html").read_text(encoding="utf-8")).data["runs"]
    assert len(found["numbers"]) == 21 and found["attention"]["words"] == [
        "start",
        "a",
        "red",
        "car",
        "on",
        "grass",
        "end",
    ]
    assert run([*words, "-o", "lesson.html"]) == 2
    assert run([*words, "-o", "lesson.png"]) == 2
    assert run(["visualise", "lesson", "a", "b", "c", "-o", "x.html"]) == 2
    assert not (tmp_path / "x.html").exists()
