"""Which captions are trained with, and where the token is in them."""

import pytest

from diffusekit.errors import DataSetError
from diffusekit.inversion.captions import find_templates
from diffusekit.inversion.trainer import Inversion
from tests.helpers.inversions import pictures, quick

POSITIONS = 75


def prepare(settings, tmp_path) -> Inversion:
    run = Inversion(settings, tmp_path / "out", overwrite=True)
    run.close()
    return run


def counts(run: Inversion) -> list[list[int]]:
    """For each photo, how many of its captions' positions are learned vectors."""
    return [(index[:, 0] >= 0).sum(1).tolist() for index in run.batches.vector_index]


def notes(run: Inversion) -> dict[str, str]:
    return {row.file: row.note for row in run.dataset.files}


def test_while_it_learns_only_the_token_is_read_as_the_token(families, tmp_path):
    """A folder may be called photo: "a photo of a S*" has one S* all the same."""
    folder = str(pictures(tmp_path / "photo"))
    for token in ("S*", "<x>"):
        settings = quick(tmp_path, families["sd1"], pictures=folder, vectors=1, token=token)
        run = prepare(settings, tmp_path)
        assert run.name == "photo" and {n for group in counts(run) for n in group} == {1}


def test_a_caption_that_names_the_token_has_it_once(families, tmp_path):
    folder = pictures(tmp_path / "three")
    (folder / "0.txt").write_text("a photo of S* on a sofa")
    (folder / "1.txt").write_text("on a sofa")
    run = prepare(quick(tmp_path, families["sd1"], vectors=1, captions="auto"), tmp_path)
    assert counts(run)[:2] == [[1], [1]]
    words = run.model.tokenizers[0]("a photo of", add_special_tokens=False).input_ids
    assert run.batches.ids[0][0, 0, 1 : 1 + len(words)].tolist() == words


def test_own_captions_stay_whatever_their_words(families, tmp_path):
    folder = pictures(tmp_path / "three")
    (folder / "0.txt").write_text("{} beside a qwxzy")
    counted = {}
    for source in ("both", "templates"):
        run = prepare(quick(tmp_path, families["sd1"], vectors=1, captions=source), tmp_path)
        counted[source] = [len(group) for group in counts(run)]
    few = counted["templates"][0]
    assert counted["both"] == [few + 1, few, few]


def test_captions_without_room_for_the_token_are_left_out_and_said(families, tmp_path):
    folder = pictures(tmp_path / "three")
    (folder / "0.txt").write_text("cat " * 80 + "{}")
    for source in ("auto", "both"):
        run = prepare(quick(tmp_path, families["sd1"], captions=source), tmp_path)
        assert {n for group in counts(run) for n in group} == {2}
        assert notes(run)["0.png"] == "1 caption left out: no room for the token"
        assert notes(run)["1.png"] == ""
    for file in ("1.txt", "2.txt"):
        (folder / file).write_text("{} on a sofa")
    with pytest.raises(DataSetError, match=r"0\.png: the caption 'cat cat .* 75 positions"):
        prepare(quick(tmp_path, families["sd1"], captions="files"), tmp_path)


def test_many_vectors_leave_some_templates_or_none(families, tmp_path):
    run = prepare(quick(tmp_path, families["sd1"], vectors=POSITIONS - 4), tmp_path)
    kept = {len(group) for group in counts(run)}
    assert 0 < max(kept) < len(find_templates("object"))
    assert all("captions left out" in note for note in notes(run).values())
    with pytest.raises(DataSetError, match=r"a photo of a .* its 75 vectors") as caught:
        prepare(quick(tmp_path, families["sd1"], vectors=POSITIONS), tmp_path)
    assert "`vectors`" in caught.value.hint


def test_small_pictures_are_noted(mini, tmp_path):
    run = prepare(quick(tmp_path, "mini"), tmp_path)
    assert mini.native_size > 40 and set(notes(run).values()) == {"enlarged from 40x40"}
