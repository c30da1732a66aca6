"""The public names, and parameters that editors and type checkers can see."""

import inspect
import json
import typing

import pytest

import diffusekit
from diffusekit.errors import UsageError
from diffusekit.options import GenerateOptions, InvertOptions
from diffusekit.settings import GenerateSettings, InvertSettings


def test_public_names_are_found_and_others_are_not():
    assert sorted(diffusekit.__all__) == dir(diffusekit)
    for name in diffusekit.__all__:
        assert getattr(diffusekit, name) is not None
    with pytest.raises(AttributeError):
        diffusekit.nothing  # noqa: B018


def test_type_checkers_see_the_same_names():
    """Those of the block that only type checkers read."""
    source = inspect.getsource(diffusekit)
    block = source[source.index("if TYPE_CHECKING:") : source.index("_HOMES = {")]
    imported = {line.split(" as ")[1] for line in block.splitlines() if " as " in line and " import " in line}
    assigned = {line.split(" = ")[0].strip() for line in block.splitlines() if " = " in line}
    assert imported | assigned == set(diffusekit.__all__)


@pytest.mark.parametrize(
    "options,settings,explicit",
    [
        (GenerateOptions, GenerateSettings, {"prompt", "model"}),
        (InvertOptions, InvertSettings, {"pictures"}),
    ],
)
def test_options_are_the_fields_of_the_settings(options, settings, explicit):
    fields = {name: field.annotation for name, field in settings.model_fields.items() if name not in explicit}
    assert typing.get_type_hints(options) == fields
    assert options.__total__ is False


@pytest.mark.parametrize("function", ["generate", "stream", "invert"])
def test_functions_show_their_parameters(function):
    for parameter in inspect.signature(getattr(diffusekit, function)).parameters.values():
        assert parameter.annotation not in (inspect.Parameter.empty, "Any")


@pytest.mark.slow
def test_every_visualiser_takes_a_loaded_model():
    """And uses that one, even when its name can no longer be found."""
    from dataclasses import replace

    from diffusekit import visualise

    model = replace(diffusekit.load_model("mini", fast=True), name="moved away")
    options = {"model": model, "seed": 1, "steps": 2}
    made = [
        visualise.compare([{}, {"drop": "red"}], prompt="a red cat", **options),
        visualise.samplers(["ddim"], **options),
        visualise.noise(diffusekit.generate("a cat", **options)[0], model=model),
        visualise.tokens("a cat", model=model),
    ]
    assert all("moved away" in json.dumps(figure.numbers) for figure in (made[0], made[1], made[3]))
    assert made[0].numbers["runs"][0]["settings"]["fast"] is True
    with pytest.raises(UsageError, match="decided when a model is loaded"):
        visualise.tokens("a cat", model=model, dtype="bfloat16")
