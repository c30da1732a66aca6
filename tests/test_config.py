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


@pytest.mark.parametrize(
    "data,message",
    [
        ("[generate]\nsteps = 3".encode("utf-16"), "is UTF-16 or UTF-32 text, expected UTF-8"),
        ("[generate]\nsteps = 3".encode("utf-16-le"), "is UTF-16 or UTF-32 text, expected UTF-8"),
        ("[generate]\n# été\nsteps = 3".encode("latin-1"), "is not UTF-8 text: line 2 has the byte 0xe9"),
        (b"[generate]\nsteps = " + b"[" * 5000, "nested too deeply"),
        (b"[generate]\nsteps = " + b"9" * 5000, "is not TOML"),
        (b"[[generate]]\nsteps = 3", "write [generate] instead of [[generate]]"),
        (b"[generate]\nsteps = 1e309", "steps"),
        (b"[generate]\nguidance_scale = nan", "guidance_scale"),
        (b"[generate]\nsteps = 2026-01-01", "steps"),
        (b"[generate]\nseed = -2", "seed"),
    ],
)
def test_a_file_that_is_not_toml_gives_a_clear_sentence(tmp_path, data, message):
    (tmp_path / "diffusekit.toml").write_bytes(data)
    with pytest.raises(UsageError) as error:
        resolve_settings(GenerateSettings, "generate", {})
    assert message in f"{error.value.message} {error.value.hint}" and "diffusekit.toml" in error.value.message


def test_a_byte_order_mark_is_accepted(tmp_path):
    (tmp_path / "diffusekit.toml").write_bytes(b"\xef\xbb\xbf[generate]\r\nsteps = 3\r\n")
    assert resolve_settings(GenerateSettings, "generate", {}).steps == 3


def test_blank_variables_count_as_not_set(monkeypatch, caplog):
    for name in ("STEPS", "SEED", "FAST", "MODEL", "GUIDANCE_SCALE", "EMBEDDING"):
        monkeypatch.setenv(f"DIFFUSEKIT_{name}", " " if name == "SEED" else "")
    assert resolve_settings(GenerateSettings, "generate", {}) == GenerateSettings()
    assert caplog.messages == []


def test_variables_that_no_verb_has_are_named(monkeypatch, caplog):
    for name in ("DIFFUSEKIT_STEP", "DIFFUSEKIT_FOO", "diffusekit_seed", "DIFFUSEKIT_PROMPT"):
        monkeypatch.setenv(name, "3")
    for name in ("DIFFUSEKIT_DEBUG", "DIFFUSEKIT_TOKEN", "DIFFUSEKIT_VECTORS", "DIFFUSEKIT_PORT"):
        monkeypatch.setenv(name, "1")
    assert resolve_settings(GenerateSettings, "generate", {}) == GenerateSettings()
    assert sorted(message.partition(" has no")[0] for message in caplog.messages) == [
        "the variable DIFFUSEKIT_FOO",
        "the variable DIFFUSEKIT_PROMPT",
        "the variable DIFFUSEKIT_STEP",
        "the variable diffusekit_seed",
    ]
    assert "the variable DIFFUSEKIT_STEP has no effect; did you mean DIFFUSEKIT_STEPS?" in caplog.messages


def test_tables_and_keys_without_effect_are_named(tmp_path, caplog):
    (tmp_path / "diffusekit.toml").write_text(
        "[genrate]\nsteps = 3\n[invert]\nsteps = 9\n[visualize]\nimages = 2\nsteps = 5"
    )
    assert resolve_settings(GenerateSettings, "generate", {}).steps is None
    assert caplog.messages == ["diffusekit.toml: the table [genrate] has no effect; did you mean generate?"]
    caplog.clear()
    assert resolve_settings(GenerateSettings, "visualise", {}).steps == 5
    assert "diffusekit.toml: images has no effect in [visualise]" in caplog.messages


def test_a_prompt_in_the_file_is_used_when_no_other_is_given(tmp_path, capsys, monkeypatch):
    from diffusekit.cli import generate

    drawn: list[list[str]] = []
    monkeypatch.setattr(generate, "run", lambda settings, prompts, options, *images: drawn.append(prompts))
    (tmp_path / "diffusekit.toml").write_text("[generate]\nprompt = 'a dog'")
    (tmp_path / "empty.txt").write_text("")
    assert run(["generate"]) == run(["generate", "a cat"]) == 0
    assert run(["generate", "--prompts", "empty.txt"]) == 2
    assert drawn == [["a dog"], ["a cat"]]


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
