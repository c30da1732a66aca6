"""The button that empties a trash."""

import gradio as gr
import pytest

from diffusekit.server.storage.gallery import Gallery
from diffusekit.server.ui.trash_button import TrashButton
from tests.helpers.generated_image import save_image


@pytest.fixture
def album(tmp_path):
    save_image(tmp_path / "out" / "day" / "red.png", "a red cat", color="red")
    save_image(tmp_path / "out" / "day" / "blue.png", "a blue house", color="blue")
    return Gallery(tmp_path / "out")


def test_the_trash_is_emptied_when_it_is_asked_for_twice(album):
    with gr.Blocks():
        button, note = TrashButton.add(album.outputs, "x"), gr.HTML()
    assert button.reset()[button.button]["visible"] is False
    album.move_to_trash("day/red.png")
    asked, gone = button.press("", note)
    assert not gone and "1 file" in asked[note] and "permanently" in asked[button.button]["value"]
    album.move_to_trash("day/blue.png")  # somebody else, meanwhile
    again, gone = button.press(asked[button.asked], note)
    assert not gone and "2 files" in again[note] and len(album.list_trash()) == 2
    last, gone = button.press(again[button.asked], note)
    assert gone and last[button.button]["visible"] is False and not album.list_trash()
