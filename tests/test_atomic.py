"""A file is whole or not there at all."""

import pytest

from diffusekit import atomic
from diffusekit.errors import DiskError


def test_it_writes_into_folders_that_are_not_there_yet(tmp_path):
    path = atomic.write_atomic(tmp_path / "a/b/c.bin", b"hello")
    assert path.read_bytes() == b"hello" and [p.name for p in path.parent.iterdir()] == ["c.bin"]


@pytest.mark.parametrize("site", ["before writing", "half written", "before syncing", "before renaming"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_whatever_happens_the_old_file_stays_and_nothing_else(tmp_path, monkeypatch, site, error):
    path = atomic.write_atomic(tmp_path / "x.bin", b"old")

    def fail(name):
        if name == site:
            raise error

    monkeypatch.setattr(atomic, "crash_point", fail)
    with pytest.raises(DiskError if isinstance(error, OSError) else KeyboardInterrupt):
        atomic.write_atomic(path, b"new and longer")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_what_does_not_pass_its_check_is_not_kept(tmp_path):
    path = atomic.write_atomic(tmp_path / "x.bin", b"old")

    def check(beside):
        raise ValueError(beside.read_bytes())

    with pytest.raises(ValueError, match="new"):
        atomic.write_atomic(path, b"new", check)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="cannot write"):
        atomic.write_atomic(tmp_path / "file" / "x.bin", b"")
