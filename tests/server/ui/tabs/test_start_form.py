"""What the editor of the start image gives: an image, a mask, and the settings that count."""

import pytest
from PIL import Image

from diffusekit.errors import UsageError
from diffusekit.mask import Mask
from diffusekit.server.storage import sources
from diffusekit.server.ui.tabs.start_form import read_start
from diffusekit.start_image import StartImage

REST = (0, 4, True, 16, False, "fill")  # strength, soft edges, only the masked area, padding, inverted, content


def strokes(*boxes):
    layer = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    for box in boxes:
        layer.paste((255, 47, 146, 255), box)
    return layer


def test_strokes_of_all_layers_become_the_mask(rules):
    photo = Image.linear_gradient("L").resize((64, 64)).convert("RGB")
    layers = [strokes((0, 0, 8, 8)), strokes((32, 32, 48, 48))]
    found = read_start(({"background": photo, "layers": layers}, *REST), rules)
    expected = Image.new("L", (64, 64))
    for box in ((0, 0, 8, 8), (32, 32, 48, 48)):
        expected.paste(255, box)
    assert found.pop("start_image") == StartImage.open(photo).sha256
    assert found.pop("mask") == Mask.of(expected).sha256
    assert found == {"invert_mask": False, "mask_blur": 4.0, "mask_padding": 16}
    assert len(list(sources.find(rules.state, "mask", Mask.of(expected).sha256).parent.iterdir())) == 2


def test_an_image_without_strokes_has_no_settings_of_a_mask(rules):
    photo = Image.new("RGB", (64, 64), "teal")
    values = ({"background": photo, "layers": [strokes()]}, 0.5, *REST[1:])
    assert set(read_start(values, rules)) == {"start_image", "strength"}
    assert read_start((None, *REST), rules) == {} == read_start(({"background": None, "layers": []}, *REST), rules)


def test_strokes_without_an_image_are_refused(rules):
    with pytest.raises(UsageError, match="no start image"):
        read_start(({"background": None, "layers": [strokes((0, 0, 8, 8))]}, *REST), rules)
