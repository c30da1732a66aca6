"""X/Y/Z grids: axes, cells, the sheet and its record."""

import pytest
from PIL import Image

from diffusekit import metadata
from diffusekit.device import choose
from diffusekit.errors import UsageError
from diffusekit.server.ui.tabs import gallery_html
from diffusekit.settings import GenerateSettings
from diffusekit.visualise import xyz_grid


@pytest.mark.parametrize(
    ("name", "text", "values"),
    [
        ("steps", "4, 8", [4, 8]),
        ("steps", "4-20 (+8)", [4, 12, 20]),
        ("seed", "1-3", [1, 2, 3]),
        ("guidance_scale", "1-4 [3]", [1, 2.5, 4]),
        ("guidance_scale", "0.5..1.5(+.5)", [0.5, 1, 1.5]),
        ("sampler", "Euler a, dpm++_2m", ["euler_a", "dpm++_2m"]),
    ],
)
def test_what_an_axis_takes(name, text, values):
    assert [value for _, value in xyz_grid.parse_axis(name, text).values] == values


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("steps", ""),
        ("steps", "a few"),
        ("steps", "8-4"),
        ("seed", "1-5 (+0)"),
        ("sampler", "Magic"),
        ("prompt", "cat"),
        ("steps", "1e999-2"),
        ("seed", "nan"),
    ],
)
def test_what_an_axis_does_not_take(name, text):
    with pytest.raises(UsageError):
        xyz_grid.parse_axis(name, text)


def test_cells_of_a_grid_run_through_the_axes_with_one_seed():
    axes = [xyz_grid.parse_axis("steps", "4,8"), xyz_grid.parse_axis("prompt", "cat, dog"), None]
    cells = xyz_grid.grid_cells(axes, {"prompt": "a cat", "negative_prompt": "", "seed": 5, "images": 3})
    told = [(c.x, c.y, c.z, c.settings["steps"], c.settings["prompt"]) for c in cells]
    assert told == [
        (0, 0, 0, 4, "a cat"),
        (1, 0, 0, 8, "a cat"),
        (0, 1, 0, 4, "a dog"),
        (1, 1, 0, 8, "a dog"),
    ]
    assert all(c.settings["seed"] == 5 and c.settings["images"] == 1 for c in cells)


def test_grids_that_cannot_be():
    six, settings = xyz_grid.parse_axis("seed", "1-6"), {"prompt": "a cat"}
    with pytest.raises(UsageError, match="30 images"):
        xyz_grid.grid_cells([six, xyz_grid.parse_axis("steps", "1-5"), None], settings)
    with pytest.raises(UsageError, match="the same setting"):
        xyz_grid.grid_cells([six, six, None], settings)
    with pytest.raises(UsageError, match="no axis"):
        xyz_grid.grid_cells([None, None, None], settings)
    with pytest.raises(UsageError, match="not in the prompt"):
        xyz_grid.grid_cells([xyz_grid.parse_axis("prompt", "cow, dog"), None, None], settings)


def test_a_sheet_shows_every_picture_once_in_its_place():
    axes = [
        xyz_grid.parse_axis("seed", "1-3"),
        xyz_grid.parse_axis("steps", "4, 8"),
        xyz_grid.parse_axis("sampler", "ddim, lms"),
    ]
    colors = {}
    for x in range(3):
        for y in range(2):
            for z in range(2):
                colors[x, y, z] = (50 + 60 * x, 50 + 90 * y, 50 + 90 * z)
    del colors[2, 1, 1]  # stopped before the last
    sheet = xyz_grid.render_sheet(axes, {k: Image.new("RGB", (40, 30), c) for k, c in colors.items()})
    seen = {color: number for number, color in sheet.getcolors(100_000)}
    assert all(seen[color] == 40 * 30 for color in colors.values())


def test_a_sheet_says_how_it_was_made(tmp_path):
    axes = [xyz_grid.parse_axis("steps", "4, 8"), None, xyz_grid.parse_axis("prompt", "cat, owl")]
    asked = {
        "prompt": "a red cat",
        "negative_prompt": "cats",
        "steps": 30,
        "seed": 5,
        "sampler": "lms",
    }
    first = xyz_grid.grid_cells(axes, asked)[-1].settings  # "a red owl", 8 steps
    made = GenerateSettings(**first, guidance_scale=3.0, width=8, height=8)
    record = xyz_grid.sheet_record(metadata.Record.create(made, "r1", choose("cpu", "float32")), axes, asked)
    path = metadata.save(Image.new("RGB", (8, 8)), tmp_path / "x-grid.png", record)
    found = metadata.read(path)
    assert found.record == record and found.record.axes == {
        "Steps": ("4", "8"),
        "Prompt: replace": ("cat", "owl"),
    }
    own = found.settings
    assert (own.prompt, own.negative_prompt, own.steps) == ("a red cat", "cats", 30)
    assert (own.sampler, own.seed, own.guidance_scale, own.width) == ("lms", 5, 3.0, 8)
    assert found.parameters["X Type"] == "Steps" and found.parameters["X Values"] == "4, 8"
    assert metadata.settings_from_infotext(found.parameters).steps == 30
    assert "4, 8" in gallery_html.render_details(path, "x-grid.png")
