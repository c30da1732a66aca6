"""The form of the Generate tab: values to settings and back."""

import pytest

from diffusekit.errors import UsageError
from diffusekit.schedule import SAMPLERS
from diffusekit.server.ui import prompt_info
from diffusekit.server.ui.tabs import generate_form
from diffusekit.settings import GenerateSettings


def test_an_empty_form_leaves_everything_to_the_model_and_to_chance():
    empty = {"seed": "", "negative_prompt": " ", "embedding": [], "width": None, "steps": 8.0}
    assert generate_form.settings_from_form(empty | {"prompt": "a cat"}) == {"prompt": "a cat", "steps": 8}
    assert generate_form.settings_from_form({"prompt": "a cat", "seed": "-1"}) == {"prompt": "a cat"}
    assert generate_form.settings_from_form({"seed": str(2**62 + 1)})["seed"] == 2**62 + 1  # no rounding on the way


@pytest.mark.parametrize(
    ("values", "label"),
    [
        ({"steps": 0}, "Steps"),
        ({"seed": "x"}, "Seed"),
        ({"guidance_scale": -1}, "Guidance"),
        ({"sampler": "magic"}, "Sampler"),
        ({"width": 3}, "Width"),
        ({"images": 0}, "Images"),
    ],
)
def test_errors_of_the_form_name_the_field_as_the_page_does(values, label):
    with pytest.raises(UsageError) as caught:
        generate_form.settings_from_form({"prompt": "a cat"} | values)
    assert caught.value.message.startswith(label)


def test_the_syntax_of_a_prompt_is_restored():
    settings = GenerateSettings(prompt="(a cat:1.2)", prompt_syntax="a1111")
    values = generate_form.form_from_settings(settings, models=["mini"], seed=True)
    assert values["prompt_syntax"] == "a1111"
    assert generate_form.settings_from_form(values)["prompt_syntax"] == "a1111"


def test_warnings_have_the_labels_of_the_form():
    said = generate_form.spell_labels(["`negative_prompt` has no effect", "there is no learned token '<x>'"])
    assert said == ["Negative prompt has no effect", "There is no learned token '<x>'"]


def test_all_samplers_are_offered_once_under_different_labels():
    labels, names = zip(*generate_form.sampler_choices(), strict=True)
    assert set(names) == set(SAMPLERS) and len(set(labels)) == len(labels)


def test_every_field_has_a_label_and_every_example_fits_the_model():
    assert set(generate_form.LABELS) == set(generate_form.FIELDS)
    for prompt in generate_form.EXAMPLES:
        assert not prompt_info.count_tokens("mini", prompt).truncated
