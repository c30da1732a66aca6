"""Stars and trash of the gallery."""

import pytest

from diffusekit.errors import UsageError
from diffusekit.server.errors import ImageForbidden
from diffusekit.server.storage import trash
from diffusekit.server.storage.gallery import Gallery
from tests.helpers.generated_image import save_image


@pytest.fixture
def album(tmp_path):
    save_image(tmp_path / "out" / "day" / "red.png", "a red cat", color="red")
    save_image(tmp_path / "out" / "day" / "blue.png", "a blue house", color="blue")
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
    save_image(album.outputs / "day" / "red.png", "another", color="green")
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
