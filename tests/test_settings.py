"""Settings: checks, layers, and errors that help."""

import pytest

from diffusekit.errors import UsageError
from diffusekit.settings import GenerateSettings, resolve, validate


def test_defaults_are_what_the_model_wants():
    settings = GenerateSettings()
    assert settings.steps == 20 and settings.guidance_scale is None and settings.seed is None


def test_zero_is_a_seed_and_a_guidance():
    settings = validate(GenerateSettings, {"seed": 0, "guidance_scale": 0.0})
    assert settings.seed == 0 and settings.guidance_scale == 0.0


@pytest.mark.parametrize(
    "values,says",
    [
        ({"steps": 0}, "steps should be greater than or equal to 1, got 0"),
        ({"steps": "many"}, "steps should be a valid integer"),
        ({"guidance_scale": float("nan")}, "guidance_scale should be a finite number"),
        ({"seed": -1}, "seed should be greater than or equal to 0"),
        ({"sampler": "eulr"}, "did you mean euler?"),
        ({"dtype": "int8"}, "dtype should be 'auto', 'float32', 'float16' or 'bfloat16'"),
        ({"prompt": "x" * 20_001}, "at most 20000 characters"),
        ({"prompt": "\ud800"}, "unable to parse raw data as a unicode string"),
    ],
)
def test_a_bad_value_names_its_field(values, says):
    with pytest.raises(UsageError) as error:
        validate(GenerateSettings, values)
    assert says in error.value.message and len(error.value.message) < 250
    assert error.value.exit_code == 2 and error.value.hint


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(UsageError) as error:
        validate(GenerateSettings, {"stpes": 3})
    assert error.value.message == "there is no setting 'stpes'"
    assert error.value.hint == "did you mean 'steps'?"


def test_settings_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        GenerateSettings().steps = 3  # type: ignore[misc]


def test_layers(tmp_path, monkeypatch):
    """Flag over environment over ./diffusekit.toml over the user's folder over default."""
    import platformdirs

    user = platformdirs.user_config_path("diffusekit")
    user.mkdir(parents=True)
    (user / "config.toml").write_text("[generate]\nsteps = 1\nseed = 1\nsampler = 'ddim'\nwidth = 64\n")
    (tmp_path / "diffusekit.toml").write_text("[generate]\nsteps = 2\nseed = 2\nsampler = 'euler'\n")
    monkeypatch.setenv("DIFFUSEKIT_STEPS", "3")
    monkeypatch.setenv("DIFFUSEKIT_SEED", "3")
    found = resolve(GenerateSettings, "generate", {"steps": 4, "seed": None})
    assert (found.steps, found.seed, found.sampler, found.width, found.images) == (
        4,
        3,
        "euler",
        64,
        1,
    )


@pytest.mark.parametrize(
    "text,says",
    [
        ("[generate]\nstep = 3", "there is no setting 'step' in diffusekit.toml"),
        ("[generate]\nsteps = 'x'", "in diffusekit.toml"),
        ("steps = 3", "stands outside a table"),
        ("[generate", "is not TOML"),
    ],
)
def test_a_bad_file_is_named(tmp_path, text, says):
    (tmp_path / "diffusekit.toml").write_text(text)
    with pytest.raises(UsageError) as error:
        resolve(GenerateSettings, "generate", {})
    assert says in error.value.message


def test_a_bad_environment_is_named(monkeypatch):
    monkeypatch.setenv("DIFFUSEKIT_STEPS", "lots")
    with pytest.raises(UsageError, match="in the environment"):
        resolve(GenerateSettings, "generate", {})
