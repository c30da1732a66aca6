"""Settings: defaults, validation, and errors that help."""

import pytest

from diffusekit.errors import UsageError
from diffusekit.settings import GenerateSettings, InvertSettings, flags_of, validate


def test_defaults_leave_the_choice_to_the_model():
    settings = GenerateSettings()
    assert (
        settings.steps is None
        and settings.sampler is None
        and settings.guidance_scale is None
        and settings.seed is None
    )


def test_zero_is_a_seed_and_a_guidance():
    settings = validate(GenerateSettings, {"seed": 0, "guidance_scale": 0.0})
    assert settings.seed == 0 and settings.guidance_scale == 0.0


@pytest.mark.parametrize(
    "values,message",
    [
        ({"steps": 0}, "`steps` should be greater than or equal to 1, got 0"),
        ({"steps": "many"}, "`steps` should be a valid integer"),
        ({"guidance_scale": float("nan")}, "`guidance_scale` should be a finite number"),
        ({"seed": -2}, "`seed` should be greater than or equal to 0"),
        ({"sampler": "eulr"}, "did you mean euler?"),
        ({"dtype": "int8"}, "`dtype` should be 'auto', 'float32', 'float16' or 'bfloat16'"),
        ({"prompt": "x" * 20_001}, "at most 20000 characters"),
        ({"prompt": "\ud800"}, "`prompt` should be UTF-8 text"),
    ],
)
def test_a_bad_value_names_its_field(values, message):
    with pytest.raises(UsageError) as error:
        validate(GenerateSettings, values)
    assert message in error.value.message and len(error.value.message) < 250
    assert error.value.exit_code == 2 and error.value.hint


def test_a_bad_value_in_a_file_is_not_written_like_a_flag():
    with pytest.raises(UsageError, match=r"^steps should be a valid integer.* in diffusekit\.toml$"):
        validate(GenerateSettings, {"steps": "many"}, " in diffusekit.toml")


def test_a_setting_has_its_declared_flags_or_its_name():
    assert flags_of(GenerateSettings, "guidance_scale") == ["--guidance"]
    assert flags_of(GenerateSettings, "images") == ["--images", "-n"]
    assert flags_of(InvertSettings, "norm_bound") == ["--norm-bound"]


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(UsageError) as error:
        validate(GenerateSettings, {"stpes": 3})
    assert error.value.message == "unknown setting 'stpes'"
    assert error.value.hint == "did you mean 'steps'?"


def test_settings_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        GenerateSettings().steps = 3  # type: ignore[misc]


def test_a_seed_of_minus_one_is_random_as_in_a1111():
    assert validate(GenerateSettings, {"seed": -1}).seed is None
    assert validate(GenerateSettings, {"seed": "-1"}).seed is None
