"""A file is whole or not there at all."""

import pytest

from diffusekit import atomic
from diffusekit.errors import DiskError, UsageError


def test_missing_folders_are_made(tmp_path):
    path = atomic.write_atomic(tmp_path / "a/b/c.bin", b"hello")
    assert path.read_bytes() == b"hello" and [p.name for p in path.parent.iterdir()] == ["c.bin"]


@pytest.mark.parametrize("site", ["before writing", "half written", "before syncing", "before renaming"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_keeps_the_old_file_and_nothing_else(tmp_path, monkeypatch, site, error):
    path = atomic.write_atomic(tmp_path / "x.bin", b"old")

    def fail(name):
        if name == site:
            raise error

    monkeypatch.setattr(atomic, "crash_point", fail)
    with pytest.raises(DiskError if isinstance(error, OSError) else KeyboardInterrupt):
        atomic.write_atomic(path, b"new and longer")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_file_that_fails_its_check_is_not_kept(tmp_path):
    path = atomic.write_atomic(tmp_path / "x.bin", b"old")

    def check(beside):
        raise ValueError(beside.read_bytes())

    with pytest.raises(ValueError, match="new"):
        atomic.write_atomic(path, b"new", check)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_an_unwritable_folder_is_a_disk_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="cannot write"):
        atomic.write_atomic(tmp_path / "file" / "x.bin", b"")


def test_several_files_are_written_all_or_none(tmp_path):
    first, second = tmp_path / "a.bin", tmp_path / "b.bin"
    assert atomic.write_all({first: b"1", second: b"2"}, overwrite=False) == [first, second]
    with pytest.raises(UsageError, match=r"b\.bin already exists"):
        atomic.write_all({tmp_path / "c.bin": b"3", second: b"4"}, overwrite=False)
    assert not (tmp_path / "c.bin").exists()

    def check(path):
        if path.read_bytes() == b"bad":
            raise DiskError("bad")

    with pytest.raises(DiskError):
        atomic.write_all({first: b"new", second: b"bad"}, overwrite=True, check=check)
    assert (first.read_bytes(), second.read_bytes()) == (b"1", b"2")
