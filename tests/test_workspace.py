"""A workspace names its folders, and follows the current directory by default."""

from pathlib import Path

from diffusekit.workspace import Workspace


def test_the_default_is_the_current_directory_at_the_time_of_use(tmp_path, monkeypatch):
    workspace = Workspace()
    (tmp_path / "embeddings").mkdir()
    monkeypatch.chdir(tmp_path)
    assert workspace.embeddings.is_dir()
    monkeypatch.chdir(tmp_path.parent)
    assert not workspace.embeddings.is_dir()


def test_its_folders():
    workspace = Workspace(Path("here"))
    folders = (workspace.embeddings, workspace.recipes, workspace.outputs)
    assert folders == (Path("here/embeddings"), Path("here/training"), Path("here/outputs"))
