"""What the photographs are said to show."""

import pytest
from PIL import Image

from diffusekit.errors import DataSetError, UsageError
from diffusekit.inversion import dataset
from diffusekit.inversion.captions import find_templates, make_captions
from diffusekit.inversion.dataset import DataSet, Photo


def photos(*texts):
    picture = Image.new("RGB", (8, 8))
    found = (Photo(f"{i:02}.jpg", picture, None, text, "0" * 64) for i, text in enumerate(texts))
    return DataSet(tuple(found), ())


@pytest.mark.parametrize(
    "property, count, distinct, first",
    [
        ("object", 27, 27, "a photo of a {}"),
        ("style", 19, 17, "a painting in the style of {}"),
    ],
)
def test_the_papers_templates(property, count, distinct, first):
    found = find_templates(property)
    assert len(found) == count and len(set(found)) == distinct and found[0] == first
    assert all(text.count("{") == text.count("{}") == text.count("}") == 1 for text in found)
    assert all(text.endswith(" {}") and "  " not in text for text in found)


def test_some_that_trainers_leave_out():
    assert {"a rendition of a {}", "a photo of my {}", "a cropped photo of the {}"} <= set(find_templates("object"))
    assert "a large painting in the style of {}" in find_templates("style")


def test_sources():
    data = photos("{} on a roof", "on a sofa, at night", None)
    assert make_captions(data, "style", "templates") == [find_templates("style")] * 3
    both = make_captions(data, "object", "both")
    assert both[0] == (*find_templates("object"), "{} on a roof")
    assert both[1][-1] == "{}, on a sofa, at night" and both[2] == find_templates("object")
    with pytest.raises(DataSetError, match=r"02\.jpg has no caption") as raised:
        make_captions(data, "object", "files")
    assert raised.value.exit_code == 4 and ".txt" in raised.value.hint
    assert make_captions(photos("{} on a roof", "a sofa"), "object", "files") == [
        ("{} on a roof",),
        ("{}, a sofa",),
    ]


def test_the_token_itself_in_a_text_says_where_it_stands():
    data = photos("a photo of <cat>, asleep", "category: cats", "a {strange} text")
    found = make_captions(data, "object", "files", token="<cat>")
    assert found[0] == ("a photo of {}, asleep",)
    assert make_captions(data, "object", "files", token="cat")[1] == ("{}, category: cats",)
    assert found[2] == ("{}, a {strange} text",)
    for text, told in (("S*'s hat", "{}'s hat"), ("two S*s", "two {}s"), ("catS*", "{}, catS*")):
        assert make_captions(photos(text), "object", "files", token="S*") == [(told,)]


def test_what_is_neither():
    with pytest.raises(UsageError, match="must be object or style"):
        find_templates("face")
    with pytest.raises(UsageError, match="templates, files, both"):
        make_captions(photos("x"), "object", "blip")


def test_auto_takes_a_caption_where_there_is_one():
    data = photos("{} on a roof", None)
    assert make_captions(data, "object", "auto") == [("{} on a roof",), find_templates("object")]
    assert make_captions(photos(None, None), "style", "auto") == [find_templates("style")] * 2


def test_the_photos_of_the_world_say_where_they_were_taken(tmp_path):
    from training.mini.photos import PHOTO_BACKGROUNDS, caption_templates, write_photos

    write_photos("owl", tmp_path / "owl")
    data = dataset.collect(tmp_path / "owl")
    said = make_captions(data, "object", "auto")
    assert [group[0] for group in said] == caption_templates()
    assert len(set(caption_templates())) == len(PHOTO_BACKGROUNDS)
    write_photos("owl", tmp_path / "bare", captions=False)
    assert len(list((tmp_path / "bare").iterdir())) == 5
