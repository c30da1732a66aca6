"""The web page without a browser: form, grids, album, likeness, restoring, pieces of HTML."""

import asyncio
import io
import json
import re
import sys
from html.parser import HTMLParser

import gradio as gr
import pytest
from PIL import Image, PngImagePlugin

from diffusekit import metadata
from diffusekit.device import choose
from diffusekit.errors import DiffusekitError, Overloaded, UsageError
from diffusekit.server.errors import ImageForbidden
from diffusekit.server.jobs.queue import Jobs
from diffusekit.server.jobs.worker import Worker
from diffusekit.server.storage import trash
from diffusekit.server.storage.gallery import Gallery
from diffusekit.server.storage.similarity import ImageSearch
from diffusekit.server.ui import context, html, progress, prompt_info, theme
from diffusekit.server.ui.tabs import gallery_facts, gallery_html, generate_form, generate_restore
from diffusekit.server.ui.trash_button import TrashButton
from diffusekit.settings import GenerateSettings, ServeSettings
from diffusekit.visualise import xyz_grid

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(1)>'


def picture(path, color="red", prompt="a red cat", **settings):
    made = GenerateSettings(prompt=prompt, seed=7, width=8, height=8, guidance_scale=3.0, **settings)
    record = metadata.Record.create(made, "r1", choose("cpu", "float32"))
    return metadata.save(Image.new("RGB", (8, 8), color), path, record)


# --- form ------------------------------------------------------------------------------------


def test_an_empty_form_leaves_everything_to_the_model_and_to_chance():
    empty = {"seed": "", "negative_prompt": " ", "embedding": [], "width": None, "steps": 8.0}
    assert generate_form.settings_of(empty | {"prompt": "a cat"}) == {"prompt": "a cat", "steps": 8}
    assert generate_form.settings_of({"prompt": "a cat", "seed": "-1"}) == {"prompt": "a cat"}
    assert generate_form.settings_of({"seed": str(2**62 + 1)})["seed"] == 2**62 + 1  # no rounding on the way


@pytest.mark.parametrize(
    ("values", "label"),
    [
        ({"steps": 0}, "Steps"),
        ({"seed": "x"}, "Seed"),
        ({"guidance_scale": -1}, "Guidance"),
        ({"sampler": "magic"}, "Sampler"),
        ({"width": 3}, "Width"),
        ({"images": 0}, "Pictures"),
    ],
)
def test_errors_of_the_form_name_the_field_as_the_page_does(values, label):
    with pytest.raises(UsageError) as caught:
        generate_form.settings_of({"prompt": "a cat"} | values)
    assert caught.value.message.startswith(label)


def test_all_samplers_are_offered_once_under_different_labels():
    labels, names = zip(*generate_form.sampler_choices(), strict=True)
    assert set(names) == set(generate_form.SAMPLERS) and len(set(labels)) == len(labels)


def test_every_field_has_a_label_and_every_example_fits_the_model():
    assert set(generate_form.LABELS) == set(generate_form.FIELDS)
    for prompt in generate_form.EXAMPLES:
        assert not prompt_info.count_tokens("mini", prompt).truncated


# --- grids -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "values"),
    [
        ("steps", "4, 8", [4, 8]),
        ("steps", "4-20 (+8)", [4, 12, 20]),
        ("seed", "1-3", [1, 2, 3]),
        ("guidance_scale", "1-4 [3]", [1, 2.5, 4]),
        ("guidance_scale", "0.5..1.5(+.5)", [0.5, 1, 1.5]),
        ("sampler", "Euler a, dpm++_2m", ["euler_a", "dpm++_2m"]),
    ],
)
def test_what_an_axis_takes(name, text, values):
    assert [value for _, value in xyz_grid.parse_axis(name, text).values] == values


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("steps", ""),
        ("steps", "a few"),
        ("steps", "8-4"),
        ("seed", "1-5 (+0)"),
        ("sampler", "Magic"),
        ("prompt", "cat"),
        ("steps", "1e999-2"),
        ("seed", "nan"),
    ],
)
def test_what_an_axis_does_not_take(name, text):
    with pytest.raises(UsageError):
        xyz_grid.parse_axis(name, text)


def test_cells_of_a_grid_run_through_the_axes_with_one_seed():
    axes = [xyz_grid.parse_axis("steps", "4,8"), xyz_grid.parse_axis("prompt", "cat, dog"), None]
    cells = xyz_grid.grid_cells(axes, {"prompt": "a cat", "negative_prompt": "", "seed": 5, "images": 3})
    told = [(c.x, c.y, c.z, c.settings["steps"], c.settings["prompt"]) for c in cells]
    assert told == [
        (0, 0, 0, 4, "a cat"),
        (1, 0, 0, 8, "a cat"),
        (0, 1, 0, 4, "a dog"),
        (1, 1, 0, 8, "a dog"),
    ]
    assert all(c.settings["seed"] == 5 and c.settings["images"] == 1 for c in cells)


def test_grids_that_cannot_be():
    six, settings = xyz_grid.parse_axis("seed", "1-6"), {"prompt": "a cat"}
    with pytest.raises(UsageError, match="30 pictures"):
        xyz_grid.grid_cells([six, xyz_grid.parse_axis("steps", "1-5"), None], settings)
    with pytest.raises(UsageError, match="same thing"):
        xyz_grid.grid_cells([six, six, None], settings)
    with pytest.raises(UsageError, match="no axis"):
        xyz_grid.grid_cells([None, None, None], settings)
    with pytest.raises(UsageError, match="not in the prompt"):
        xyz_grid.grid_cells([xyz_grid.parse_axis("prompt", "cow, dog"), None, None], settings)


def test_a_sheet_shows_every_picture_once_in_its_place():
    axes = [
        xyz_grid.parse_axis("seed", "1-3"),
        xyz_grid.parse_axis("steps", "4, 8"),
        xyz_grid.parse_axis("sampler", "ddim, lms"),
    ]
    colors = {}
    for x in range(3):
        for y in range(2):
            for z in range(2):
                colors[x, y, z] = (50 + 60 * x, 50 + 90 * y, 50 + 90 * z)
    del colors[2, 1, 1]  # stopped before the last
    sheet = xyz_grid.render_sheet(axes, {k: Image.new("RGB", (40, 30), c) for k, c in colors.items()})
    seen = {color: number for number, color in sheet.getcolors(100_000)}
    assert all(seen[color] == 40 * 30 for color in colors.values())


def test_a_sheet_says_how_it_was_made(tmp_path):
    axes = [xyz_grid.parse_axis("steps", "4, 8"), None, xyz_grid.parse_axis("prompt", "cat, owl")]
    asked = {
        "prompt": "a red cat",
        "negative_prompt": "cats",
        "steps": 30,
        "seed": 5,
        "sampler": "lms",
    }
    first = xyz_grid.grid_cells(axes, asked)[-1].settings  # "a red owl", 8 steps
    made = GenerateSettings(**first, guidance_scale=3.0, width=8, height=8)
    record = xyz_grid.sheet_record(metadata.Record.create(made, "r1", choose("cpu", "float32")), axes, asked)
    path = metadata.save(Image.new("RGB", (8, 8)), tmp_path / "x-grid.png", record)
    found = metadata.read(path)
    assert found.record == record and found.record.axes == {
        "Steps": ("4", "8"),
        "Prompt: replace": ("cat", "owl"),
    }
    own = found.settings
    assert (own.prompt, own.negative_prompt, own.steps) == ("a red cat", "cats", 30)
    assert (own.sampler, own.seed, own.guidance_scale, own.width) == ("lms", 5, 3.0, 8)
    assert found.parameters["X Type"] == "Steps" and found.parameters["X Values"] == "4, 8"
    assert metadata.settings_from_infotext(found.parameters).steps == 30
    assert "4, 8" in gallery_facts.render_details(path, "x-grid.png")


# --- trash -----------------------------------------------------------------------------------


def test_the_trash_is_emptied_when_it_is_asked_for_twice(album):
    with gr.Blocks():
        emptying, note = TrashButton.add(album.outputs, "x"), gr.HTML()
    assert emptying.fresh()[emptying.button]["visible"] is False
    album.move_to_trash("day/red.png")
    asked, gone = emptying.press("", note)
    assert not gone and "1 file" in asked[note] and "for good" in asked[emptying.button]["value"]
    album.move_to_trash("day/blue.png")  # somebody else, meanwhile
    again, gone = emptying.press(asked[emptying.asked], note)
    assert not gone and "2 files" in again[note] and len(album.list_trash()) == 2
    last, gone = emptying.press(again[emptying.asked], note)
    assert gone and last[emptying.button]["visible"] is False and not album.list_trash()


def test_emptying_reaches_nothing_outside(tmp_path):
    (tmp_path / "here" / ".trash" / "1").mkdir(parents=True)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "kept").write_text("x" * 1000)
    (tmp_path / "here" / ".trash" / "1" / "link").symlink_to(tmp_path / "there")
    (tmp_path / "here" / ".trash" / "1" / "file").write_text("abc")
    assert trash.usage(tmp_path / "here") == trash.Usage(1, 3)
    trash.empty(tmp_path / "here")
    assert not (tmp_path / "here" / ".trash").exists() and (tmp_path / "there" / "kept").exists()
    assert trash.empty(tmp_path / "here") == trash.Usage(0, 0)


# --- album -----------------------------------------------------------------------------------


@pytest.fixture
def album(tmp_path):
    picture(tmp_path / "out" / "day" / "red.png", "red", "a red cat")
    picture(tmp_path / "out" / "day" / "blue.png", "blue", "a blue house")
    return Gallery(tmp_path / "out")


def names(found):
    return [entry.path for entry in found]


def test_stars_are_kept_on_disk(album):
    assert album.toggle_star("day/red.png") is True
    again = Gallery(album.outputs)
    assert names(again.search(starred=True)) == ["day/red.png"]
    assert names(again.search("blue", starred=True)) == []
    assert again.toggle_star("day/red.png") is False
    assert album.stars() == set()


def test_what_is_thrown_away_can_be_taken_back_bit_by_bit(album):
    path = album.outputs / "day" / "red.png"
    before = path.read_bytes()
    album.toggle_star("day/red.png")
    kept = album.move_to_trash("day/red.png")
    assert names(album.search()) == ["day/blue.png"] and not path.exists()
    assert album.list_trash() == [kept]
    assert album.restore(kept) == "day/red.png"
    assert path.read_bytes() == before and album.list_trash() == []
    assert names(album.search(starred=True)) == ["day/red.png"]
    with pytest.raises(UsageError, match="not in the trash"):
        album.restore(kept)


def test_taking_back_never_overwrites(album):
    kept = album.move_to_trash("day/red.png")
    picture(album.outputs / "day" / "red.png", "green", "another")
    with pytest.raises(UsageError, match="exists again"):
        album.restore(kept)
    assert album.list_trash() == [kept]


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "day/../../x.png", ".trash/1/x.png"])
def test_nothing_outside_the_outputs_is_starred_or_thrown_away(album, name):
    (album.outputs.parent / "secret.png").write_bytes(b"x")
    for act in (album.toggle_star, album.move_to_trash):
        with pytest.raises(ImageForbidden):
            act(name)
    for kept in (f"1/{name}", f"../{name}", "x/day/red.png"):
        with pytest.raises(UsageError):
            album.restore(kept)
    assert (album.outputs.parent / "secret.png").exists()


# --- likeness --------------------------------------------------------------------------------


@pytest.fixture
def jobs(tmp_path):
    found = Jobs(ServeSettings(outputs=str(tmp_path / "out"), state=str(tmp_path / "state")))
    found.models.is_loaded = True  # as after loading; no worker is needed here
    return found


def test_the_likest_picture_comes_first_and_is_looked_at_once(album, jobs, tmp_path):
    kept = tmp_path / "state" / "likeness.safetensors"
    entries = album.search()
    seen = ImageSearch(jobs.models, jobs.outputs, kept)
    assert list(seen.index(entries)) == [(0, 2)]
    ranked = seen.rank(entries, album.outputs / "day" / "blue.png")
    assert [e.path for _, e in ranked] == ["day/blue.png", "day/red.png"]
    assert ranked[0][0] == pytest.approx(1, abs=1e-4) and ranked[1][0] < 0.999
    by_words = {e.path: score for score, e in seen.rank(entries, "a blue picture")}
    assert set(by_words) == {"day/blue.png", "day/red.png"}
    again = ImageSearch(jobs.models, jobs.outputs, kept)
    assert list(again.index(entries)) == []  # read back from the file
    assert again.rank(entries, "a blue picture")[0][0] == pytest.approx(max(by_words.values()))


def test_likeness_waits_for_the_model_and_survives_a_damaged_file(album, jobs, tmp_path):
    kept = tmp_path / "likeness.safetensors"
    kept.write_bytes(b"nonsense")
    (album.outputs / "bad.png").write_bytes(b"\x89PNG nonsense")
    seen = ImageSearch(jobs.models, jobs.outputs, kept)
    jobs.models.is_loaded = False
    with pytest.raises(DiffusekitError, match="being loaded"):
        list(seen.index(album.search()))
    jobs.models.is_loaded = True
    list(seen.index(album.search()))
    assert len(seen.rank(album.search(), "red")) == 2  # the damaged one is left out


# --- reading, restoring ----------------------------------------------------------------------


def test_the_counter_tells_what_the_model_does_not_see():
    short = prompt_info.count_tokens("mini", "a red cat")
    assert (short.used, short.limit, short.truncated) == (3, 75, "")
    long = prompt_info.count_tokens("mini", "a red cat " * 30 + "castle")
    assert long.used == 75 and long.truncated.endswith("castle")


def test_the_counter_knows_learned_tokens(tmp_path):
    import shutil

    from tests.helpers import ROOT

    (tmp_path / "embeddings").mkdir()
    for name in ("my_robot", "my_snail"):
        shutil.copy(ROOT / "embeddings" / f"{name}.safetensors", tmp_path / "embeddings")
    assert generate_restore.learned_names(tmp_path / "embeddings") == ["my_robot", "my_snail"]
    assert prompt_info.count_tokens("mini", "a picture of <my_robot>").learned == ("my_robot",)
    assert prompt_info.count_tokens("mini", "a picture of S*", ("my_snail",)).learned == ("my_snail",)
    with pytest.raises(UsageError, match="token of"):
        prompt_info.count_tokens("mini", "a picture of S*")


def test_the_page_knows_the_size_and_guidance_of_a_model(mini):
    info = prompt_info.describe_model("mini")
    assert info.native_size == mini.native_size and info.guidance_scale == mini.guidance_scale


def test_a_picture_gives_its_settings_back(tmp_path, jobs):
    path = picture(tmp_path / "x.png", prompt="a red cat", steps=9, sampler="euler_a")
    found = generate_restore.read_form_values(jobs, path, "all")
    assert (found["prompt"], found["steps"], found["sampler"]) == ("a red cat", 9, "euler_a")
    assert found["seed"] == "7" and found["images"] == 1
    assert generate_restore.read_form_values(jobs, path, "remix") == found | {"seed": ""}
    assert generate_restore.read_form_values(jobs, path, "seed") == {"seed": "7"}


def test_a_picture_of_a1111_gives_back_what_it_can(tmp_path, jobs):
    info = PngImagePlugin.PngInfo()
    info.add_text(
        "parameters",
        "a cat\nNegative prompt: a dog\nSteps: 12, Sampler: Euler a, CFG scale: 5, Seed: 42, Size: 64x96, Model: other",
    )
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=info)
    found = generate_restore.read_form_values(jobs, tmp_path / "a.png", "all")
    assert (found["seed"], found["steps"], found["width"], found["height"]) == ("42", 12, 64, 96)
    assert found["negative_prompt"] == "a dog" and found["sampler"] == "euler_a"


def test_a_model_and_tokens_that_are_not_here_are_named(tmp_path, jobs):
    path = picture(tmp_path / "x.png", model="someone/else", embedding=("my_ghost",))
    assert "model" not in generate_restore.read_form_values(jobs, path, "all")
    words = generate_restore.restore_notice(jobs, path, "all")
    assert "someone/else is not here" in words and "my_ghost is not here" in words


def test_a_picture_without_a_record_says_so(tmp_path, jobs):
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    with pytest.raises(UsageError, match="does not say"):
        generate_restore.read_form_values(jobs, tmp_path / "plain.png", "all")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(DiffusekitError):
        generate_restore.read_form_values(jobs, tmp_path / "text.png", "all")


# --- running ---------------------------------------------------------------------------------


def test_a_visitor_who_leaves_while_waiting_in_line_takes_the_job_along(tmp_path, monkeypatch):
    monkeypatch.setattr(Worker, "run", lambda self: None)  # nobody works: all jobs stay in line
    monkeypatch.setattr(progress, "POLL_INTERVAL", 0.01)
    jobs = Jobs(ServeSettings(outputs=str(tmp_path / "out"), state=str(tmp_path / "state"))).open()

    run = progress.VisitorJob()

    async def visit():
        moments = progress.follow_images(jobs, {"prompt": "a cat"}, run)
        seen = [await anext(moments) for _ in range(3)]
        await moments.aclose()
        return seen

    seen = asyncio.run(visit())
    assert [moment.status for moment in seen] == ["Next in the queue"] * 3
    assert jobs.get(run.job_id).state == "cancelled" and not jobs.queue_length
    jobs.close(1)


def test_stop_counts_before_there_is_a_job_and_between_the_cells_of_a_grid(tmp_path, monkeypatch):
    monkeypatch.setattr(Worker, "run", lambda self: None)
    jobs = Jobs(ServeSettings(outputs=str(tmp_path / "out"), state=str(tmp_path / "state"))).open()
    run = progress.VisitorJob()
    run.stop(jobs)

    async def visit():
        axes = [xyz_grid.parse_axis("steps", "3, 4"), None, None]
        cells = xyz_grid.grid_cells(axes, {"prompt": "a cat", "seed": 1})
        return [m async for m in progress.follow_grid(jobs, axes, cells, {"prompt": "a cat"}, run)]

    assert asyncio.run(asyncio.wait_for(visit(), 20))[-1].status == "Stopped: 0 of 2 images."
    (only,) = jobs.list()
    assert only.state == "cancelled"
    jobs.close(1)


def test_a_server_that_stops_keeps_what_a_page_has_in_line(tmp_path, monkeypatch):
    monkeypatch.setattr(Worker, "run", lambda self: None)
    jobs = Jobs(ServeSettings(outputs=str(tmp_path / "out"), state=str(tmp_path / "state"))).open()

    async def visit():
        moments = progress.follow_images(jobs, {"prompt": "a cat"})
        await anext(moments)
        for feed in jobs.unfinished:
            feed.close()  # as `Jobs.close` does, before the list of jobs is put away
        with pytest.raises(Overloaded):
            await anext(moments)

    asyncio.run(visit())
    assert jobs.queue_length == 1 and jobs.list()[0].state == "queued"
    jobs.close(1)


def test_what_cannot_be_queued_is_said_before_anything_is_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(Worker, "run", lambda self: None)
    settings = ServeSettings(outputs=str(tmp_path / "o"), state=str(tmp_path / "s"), queue=1)
    jobs = Jobs(settings).open()
    jobs.submit("generate", {"prompt": "a cat"})

    async def visit(settings):
        return [moment async for moment in progress.follow_images(jobs, settings)]

    with pytest.raises(DiffusekitError, match="waiting"):
        asyncio.run(visit({"prompt": "a dog"}))
    assert "waiting" in context.error_notice(Overloaded("1 jobs are waiting, and no more may"))
    jobs.close(1)


def test_unexpected_errors_show_their_name_and_nothing_else(caplog):
    shown = context.error_notice(RuntimeError("secret /home/somebody"))
    assert "RuntimeError" in shown and "secret" not in shown
    assert "secret" in caplog.text


# --- pieces of HTML --------------------------------------------------------------------------


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_nothing_that_people_write_becomes_html(tmp_path):
    path = picture(tmp_path / "x.png", prompt=EVIL, negative_prompt=EVIL)
    pieces = [
        html.render_notice(EVIL, EVIL, kind="error"),
        html.render_meter(3, 75, EVIL, [EVIL]),
        html.render_table({EVIL: EVIL}),
        html.render_stage(["data:image/webp;base64,AA"], 0.5, EVIL),
        html.render_word_list([EVIL]),
        gallery_facts.render_details(path, EVIL),
        gallery_html.render_grid("", EVIL),
        gallery_html.render_thumbnails(tmp_path, [("x.png", 0.0, EVIL), (EVIL, 0.0, EVIL)], stars={EVIL}, shown=EVIL),
    ]
    for piece in pieces:
        for tag, attributes in Tags(piece).found:
            assert tag != "script", piece
            assert not any(name.startswith("on") for name in attributes), piece
            assert tag != "img" or attributes["src"].startswith("data:image/"), piece
    assert Tags(html.render_word_list([EVIL])).found == [("div", {"data-words": json.dumps([EVIL])})]


def test_thumbnails_are_small_and_damaged_files_have_none(tmp_path):
    Image.effect_noise((2000, 1000), 80).save(tmp_path / "big.png")
    address = html.thumbnail_url(tmp_path / "big.png", 1.0)
    assert address.startswith("data:image/webp;base64,") and len(address) < 60_000
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    assert html.thumbnail_url(tmp_path / "bad.png", 1.0) == ""


def test_the_page_asks_for_nothing_elsewhere():
    dress = theme.page_options()
    look = dress["theme"]
    assert look._stylesheets == []  # no web fonts
    for text in (dress["css"], dress["head"], look._get_theme_css()):
        addresses = set(re.findall(r"https?://[^'\" )]+", text)) - {"http://www.w3.org/2000/svg"}
        assert not addresses and "@import" not in text


def test_thumbnail_bytes_decode():
    import base64

    address = html.to_data_url(Image.new("RGB", (9, 9), "red"))
    data = base64.b64decode(address.partition(",")[2])
    assert Image.open(io.BytesIO(data)).size == (9, 9)


# --- the whole page --------------------------------------------------------------------------


@pytest.fixture
def demo(jobs, tmp_path):
    from diffusekit.server import ui

    return ui.build(jobs, jobs.settings)


def test_only_generate_is_an_endpoint(demo):
    public = [f.api_name for f in demo.fns.values() if f.api_visibility == "public"]
    assert public == ["generate"]
    assert set(demo.get_api_info()["named_endpoints"]) == {"/generate"}


def test_every_field_and_button_has_words_and_nothing_is_there_for_show(demo):
    blocks = demo.blocks.values()
    for block in blocks:
        if isinstance(block, gr.components.FormComponent | gr.Image | gr.Gallery):
            assert block.label, block
        if isinstance(block, gr.Button | gr.UploadButton) and block.visible:
            assert (block.value or block.label).strip(), block
    used = {target for f in demo.fns.values() for target, _ in f.targets}
    idle = [b.value for b in blocks if isinstance(b, gr.Button) and b._id not in used]
    assert not idle


def test_analytics_are_off():
    import os

    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False" and "gradio" in sys.modules
