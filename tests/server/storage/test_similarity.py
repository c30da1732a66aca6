"""Search by similarity."""

import pytest

from diffusekit.errors import DiffusekitError
from diffusekit.server.jobs.queue import Jobs
from diffusekit.server.storage.gallery import Gallery
from diffusekit.server.storage.similarity import ImageSearch
from diffusekit.settings import ServeSettings
from tests.helpers.generated_image import save_image


@pytest.fixture
def album(tmp_path):
    save_image(tmp_path / "out" / "day" / "red.png", "a red cat", color="red")
    save_image(tmp_path / "out" / "day" / "blue.png", "a blue house", color="blue")
    return Gallery(tmp_path / "out")


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
