"""Recipes are found by their names, wherever one works and however the program was installed."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from diffusekit.cli.main import run
from diffusekit.errors import UsageError
from diffusekit.inversion import recipes
from tests.helpers import ROOT

NAMES = ("object", "quick", "style")


def test_they_are_known_in_any_folder():
    assert tuple(sorted(recipes.known())) == NAMES
    assert all(recipes.find(name) == ROOT / "training" / f"{name}.toml" for name in NAMES)


def test_those_of_the_folder_one_works_in_come_first():
    Path("training").mkdir()
    for name in ("mine", "style"):
        Path(f"training/{name}.toml").write_text("steps = 5")
    assert recipes.find("style") == Path("training/style.toml")
    assert recipes.find("mine") == Path("training/mine.toml")
    assert recipes.find("object") == ROOT / "training/object.toml"
    assert recipes.find("else/where.toml") == Path("else/where.toml")


def test_a_mistyped_name_is_told_the_nearest(tmp_path, capsys):
    assert run(["invert", str(tmp_path), "--recipe", "stile"]) == 2
    said = capsys.readouterr().err
    assert "there is no recipe 'stile'" in said
    assert "did you mean style? the recipes are object, quick, style" in said
    with pytest.raises(UsageError) as caught:
        recipes.find("zzz")
    assert "did you mean" not in caught.value.hint and "object" in caught.value.hint


def test_installed_they_lie_in_the_package(tmp_path, monkeypatch):
    package = tmp_path / "site" / "diffusekit"
    (package / "recipes").mkdir(parents=True)
    (tmp_path / "site" / "training").mkdir()
    (tmp_path / "site" / "training" / "someone_elses.toml").write_text("")
    (package / "recipes" / "object.toml").write_text("")
    monkeypatch.setattr(recipes, "_PACKAGE", package)
    assert recipes.known() == {"object": package / "recipes" / "object.toml"}


def test_the_wheel_is_told_of_all_of_them():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert {f"training/{name}.toml" for name in NAMES} < set(wheel["only-include"])
    assert wheel["sources"] == {"training": "diffusekit/recipes"}


@pytest.mark.slow
def test_the_wheel_holds_them(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as held:
        for name in NAMES:
            ours = (ROOT / f"training/{name}.toml").read_bytes()
            assert held.read(f"diffusekit/recipes/{name}.toml") == ours
