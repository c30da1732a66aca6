"""The whole page without a browser, and its pieces of HTML."""

import base64
import io
import json
import os
import sys
from html.parser import HTMLParser

import gradio as gr
import pytest
from PIL import Image

from diffusekit.server.jobs.queue import Jobs
from diffusekit.server.ui import context, html
from diffusekit.server.ui.prompt_info import TokenCount
from diffusekit.server.ui.tabs import gallery_html, generate_html
from diffusekit.settings import ServeSettings
from tests.helpers.generated_image import save_image
from tests.helpers.markup import EVIL


@pytest.fixture
def jobs(tmp_path):
    found = Jobs(ServeSettings(outputs=str(tmp_path / "out"), state=str(tmp_path / "state")))
    found.models.is_loaded = True  # as after loading; no worker is needed here
    return found


def test_unexpected_errors_show_their_name_and_nothing_else(caplog):
    shown = context.error_notice(RuntimeError("secret /home/somebody"))
    assert "RuntimeError" in shown and "secret" not in shown
    assert "secret" in caplog.text


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_nothing_that_people_write_becomes_html(tmp_path):
    path = save_image(tmp_path / "x.png", prompt=EVIL, negative_prompt=EVIL)
    pieces = [
        html.render_notice(EVIL, EVIL, kind="error"),
        generate_html.render_token_count(TokenCount(3, 75, EVIL, (EVIL,))),
        html.render_table({EVIL: EVIL}),
        html.render_stage(["data:image/webp;base64,AA"], 0.5, EVIL),
        generate_html.render_word_list([EVIL]),
        gallery_html.render_details(path, EVIL),
        gallery_html.render_grid("", EVIL),
        gallery_html.render_thumbnails(tmp_path, [("x.png", 0.0, EVIL), (EVIL, 0.0, EVIL)], stars={EVIL}, opened=EVIL),
    ]
    for piece in pieces:
        for tag, attributes in Tags(piece).found:
            assert tag != "script", piece
            assert not any(name.startswith("on") for name in attributes), piece
            assert tag != "img" or attributes["src"].startswith("data:image/"), piece
    assert Tags(generate_html.render_word_list([EVIL])).found == [("div", {"data-words": json.dumps([EVIL])})]


def test_thumbnails_are_small_and_damaged_files_have_none(tmp_path):
    Image.effect_noise((2000, 1000), 80).save(tmp_path / "big.png")
    address = html.thumbnail_url(tmp_path / "big.png", 1.0)
    assert address.startswith("data:image/webp;base64,") and len(address) < 60_000
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    assert html.thumbnail_url(tmp_path / "bad.png", 1.0) == ""


def test_thumbnail_bytes_decode():
    address = html.to_data_url(Image.new("RGB", (9, 9), "red"))
    data = base64.b64decode(address.partition(",")[2])
    assert Image.open(io.BytesIO(data)).size == (9, 9)


@pytest.fixture
def demo(jobs, tmp_path):
    from diffusekit.server import ui

    return ui.build(jobs, jobs.settings)


def test_only_generate_is_an_endpoint(demo):
    public = [f.api_name for f in demo.fns.values() if f.api_visibility == "public"]
    assert public == ["generate"]
    assert set(demo.get_api_info()["named_endpoints"]) == {"/generate"}


def test_every_field_and_button_has_words_and_nothing_is_there_for_show(demo):
    for block in demo.blocks.values():
        if isinstance(block, gr.components.FormComponent | gr.Image | gr.Gallery):
            assert block.label, block
        if isinstance(block, gr.Button | gr.UploadButton) and block.visible:
            assert (block.value or block.label).strip(), block
    used = {target for f in demo.fns.values() for target, _ in f.targets}
    idle = [b.value for number, b in demo.blocks.items() if isinstance(b, gr.Button) and number not in used]
    assert not idle


def test_a_row_of_tabs_holds_nothing_but_tabs(demo):
    rows = [block for block in demo.blocks.values() if isinstance(block, gr.Tabs)]
    assert len(rows) >= 2
    for row in rows:  # Gradio counts every child, and shows wrong tabs otherwise
        assert all(isinstance(child, gr.Tab) for child in row.children)


def test_analytics_are_off():
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False" and "gradio" in sys.modules
