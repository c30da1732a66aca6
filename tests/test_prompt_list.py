"""Lists of prompts: every format, every setting, and each bad line by itself."""

import json
from pathlib import Path

import pytest

from diffusekit.errors import UsageError
from diffusekit.prompt_list import read_prompts
from diffusekit.settings import GenerateSettings

DEFAULTS = GenerateSettings(steps=7)


def read(name: str, content: str | bytes, defaults: GenerateSettings = DEFAULTS):
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_prompts(Path(name), defaults)


def test_a_text_file_has_a_prompt_on_each_line():
    rows = read("p.txt", "a red cat\r\n\n  # a comment\n  a dog \n")
    assert [(row.line, row.settings.prompt, row.settings.steps) for row in rows] == [
        (1, "a red cat", 7),
        (4, "a dog", 7),
    ]


def test_an_object_or_a_table_row_may_have_any_setting():
    objects = read("p.jsonl", '{"prompt": "a cat", "seed": 5, "width": 64}\n{"prompt": "b", "sampler": null}\n')
    table = read("p.csv", 'prompt,seed,width\n"a cat",5,64\n"b, or c",,\n')
    assert objects[0].settings == table[0].settings == GenerateSettings(prompt="a cat", seed=5, width=64, steps=7)
    assert table[1].settings.prompt == "b, or c" and table[1].settings.width is None
    assert read("p.tsv", "prompt\tsteps\na, b\t3\n")[0].settings.steps == 3


def test_a_name_depends_on_the_settings_of_its_line_alone():
    first = {row.settings.prompt: row.id for row in read("p.txt", "a cat\na dog\n")}
    second = {row.settings.prompt: row.id for row in read("p.txt", "a bird\na dog\na cat\n")}
    assert first["a cat"] == second["a cat"] and first["a cat"].startswith("a-cat-")
    other = read("p.txt", "a cat\n", GenerateSettings(steps=8))
    assert other[0].id != first["a cat"]


def test_equal_lines_are_different_images():
    rows = read("p.jsonl", '{"prompt": "a", "images": 3}\n' * 3)
    assert [row.settings.seed for row in rows] == [0, 3, 6] and len({row.id for row in rows}) == 3
    assert [row.settings.seed for row in read("p.txt", "a\na\n", GenerateSettings(seed=40))] == [40, 41]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("nonsense", "is not JSON"),
        ("[1]", "is JSON, but not an object"),
        ("[" * 5000, "is not JSON"),
        ('{"prompt": ""}', "the prompt is empty"),
        ('{"prompt": "a", "stepz": 3}', "unknown setting 'stepz'"),
        ('{"prompt": "a", "steps": 0}', "steps should be greater than or equal to 1"),
        ('{"prompt": "a", "sampler": "eular"}', "did you mean euler"),
        ('{"prompt": "a", "id": "../x"}', "the id '../x' should be letters"),
        ('{"prompt": "a", "id": "one"}', "the id 'one' is that of line 1 too"),
    ],
)
def test_a_bad_line_does_not_spoil_the_others(line, says):
    rows = read("p.jsonl", f'{{"prompt": "good", "id": "one"}}\n{line}\n{{"prompt": "good too"}}\n')
    assert [bool(row.settings) for row in rows] == [True, False, True]
    assert says in rows[1].error and rows[1].line == 2 and rows[1].id == "line-2"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("p.txt", "\n\n", "has no prompts"),
        ("p.txt", "ab\0b", "is not text"),
        ("p.doc", "a", "is not a list of prompts by its ending"),
        ("p.csv", "seed\n1\n", "has no column `prompt`"),
        ("p.csv", "prompt,stepz\na,3\n", "has the unknown column 'stepz'"),
        ("p.csv", "", "has no column `prompt`"),
    ],
)
def test_a_file_that_is_no_list_is_refused(name, content, says):
    with pytest.raises(UsageError) as error:
        read(name, content)
    assert says in error.value.message and error.value.hint


def test_a_missing_file_is_refused():
    with pytest.raises(UsageError, match="cannot read"):
        read_prompts(Path("nothing.txt"), DEFAULTS)


def test_a_row_with_too_many_cells_says_so():
    (row,) = read("p.csv", "prompt,seed\na,b,3\n")
    assert "has 3 cells, expected 2" in row.error


def test_a_name_does_not_change_when_a_setting_is_added():
    """Names come from what differs from the defaults, so a new setting keeps the names of finished images."""
    written = json.dumps({"prompt": "a", "prompt_syntax": "plain"})
    assert (
        read("p.jsonl", written, GenerateSettings())[0].id
        == read("q.jsonl", '{"prompt": "a"}', GenerateSettings())[0].id
    )
