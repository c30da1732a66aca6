"""Settings from flags, environment and files; recipes by name, in a checkout, a workspace and an installed wheel."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from diffusekit import config
from diffusekit.cli.main import run
from diffusekit.config import find_recipe, recipes, resolve_settings
from diffusekit.errors import UsageError
from diffusekit.settings import GenerateSettings
from tests.helpers import ROOT

NAMES = ("object", "quick", "style")


def test_each_source_overrides_the_weaker_ones(tmp_path, monkeypatch):
    """Flags, environment, ./diffusekit.toml, the config file in the user's folder, defaults."""
    import platformdirs

    user = platformdirs.user_config_path("diffusekit")
    user.mkdir(parents=True)
    (user / "config.toml").write_text("[generate]\nsteps = 1\nseed = 1\nsampler = 'ddim'\nwidth = 64\n")
    (tmp_path / "diffusekit.toml").write_text("[generate]\nsteps = 2\nseed = 2\nsampler = 'euler'\n")
    monkeypatch.setenv("DIFFUSEKIT_STEPS", "3")
    monkeypatch.setenv("DIFFUSEKIT_SEED", "3")
    settings = resolve_settings(GenerateSettings, "generate", {"steps": 4, "seed": None})
    assert settings.steps == 4 and settings.seed == 3
    assert settings.sampler == "euler" and settings.width == 64 and settings.images == 1


@pytest.mark.parametrize(
    "text,message",
    [
        ("[generate]\nstep = 3", "unknown setting 'step' in diffusekit.toml"),
        ("[generate]\nsteps = 'x'", "in diffusekit.toml"),
        ("steps = 3", "is outside a table"),
        ("[generate", "is not TOML"),
    ],
)
def test_a_bad_file_is_named(tmp_path, text, message):
    (tmp_path / "diffusekit.toml").write_text(text)
    with pytest.raises(UsageError) as error:
        resolve_settings(GenerateSettings, "generate", {})
    assert message in error.value.message


def test_a_bad_environment_is_named(monkeypatch):
    monkeypatch.setenv("DIFFUSEKIT_STEPS", "lots")
    with pytest.raises(UsageError, match="in the environment"):
        resolve_settings(GenerateSettings, "generate", {})


def test_bundled_recipes_are_found_from_any_folder():
    assert tuple(sorted(recipes())) == NAMES
    assert all(find_recipe(name) == ROOT / "training" / f"{name}.toml" for name in NAMES)


def test_recipes_of_the_workspace_come_first():
    Path("training").mkdir()
    for name in ("mine", "style"):
        Path(f"training/{name}.toml").write_text("steps = 5")
    assert find_recipe("style") == Path("training/style.toml")
    assert find_recipe("mine") == Path("training/mine.toml")
    assert find_recipe("object") == ROOT / "training/object.toml"
    assert find_recipe("else/where.toml") == Path("else/where.toml")


def test_an_unknown_recipe_gets_the_nearest_name(tmp_path, capsys):
    assert run(["invert", str(tmp_path), "--recipe", "stile"]) == 2
    error = capsys.readouterr().err
    assert "unknown recipe 'stile'" in error
    assert "did you mean style? the recipes are object, quick, style" in error
    with pytest.raises(UsageError) as caught:
        find_recipe("zzz")
    assert "did you mean" not in caught.value.hint and "object" in caught.value.hint


def test_an_installed_wheel_reads_recipes_from_the_package(tmp_path, monkeypatch):
    package = tmp_path / "site" / "diffusekit"
    (package / "recipes").mkdir(parents=True)
    (tmp_path / "site" / "training").mkdir()
    (tmp_path / "site" / "training" / "someone_elses.toml").write_text("")
    (package / "recipes" / "object.toml").write_text("")
    monkeypatch.setattr(config, "PACKAGE", package)
    assert recipes() == {"object": package / "recipes" / "object.toml"}


def test_the_wheel_configuration_lists_all_recipes():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert {f"training/{name}.toml" for name in NAMES} < set(wheel["only-include"])
    assert wheel["sources"] == {"training": "diffusekit/recipes"}


@pytest.mark.slow
def test_the_wheel_contains_all_recipes(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for name in NAMES:
            expected = (ROOT / f"training/{name}.toml").read_bytes()
            assert archive.read(f"diffusekit/recipes/{name}.toml") == expected
