"""The help of every verb: complete, in any terminal width, with the settings' own descriptions."""

import re

import pytest
import typer

from diffusekit.cli.app import VERBS, command_line
from diffusekit.cli.flags import find_flags, insert_flags
from diffusekit.cli.main import run
from diffusekit.settings import GenerateSettings, InvertSettings, ServeSettings


def find_verbs(command, *words: str):
    """All verbs and sub-verbs with the command that runs each."""
    yield words, command
    for name, verb in getattr(command, "commands", {}).items():
        yield from find_verbs(verb, *words, name)


COMMAND_LINE = typer.main.get_command(command_line())
COMMANDS = dict(find_verbs(COMMAND_LINE))


def squeeze(text: str) -> str:
    """Text without white space, because a terminal wraps lines at spaces and hyphens."""
    return re.sub(r"\s+", "", text)


def read_help(capsys, *words: str) -> str:
    assert run([*words, "--help"]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("columns", ["80", "120"])
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_shows_every_option_and_its_whole_description(words, columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    printed = squeeze(read_help(capsys, *words))
    command = COMMANDS[words]
    assert squeeze(command.help) in printed
    for parameter in command.params:
        assert parameter.help, parameter.name
        assert squeeze(parameter.help) in printed
        if parameter.param_type_name == "option":
            assert all(flag in printed for flag in parameter.opts)


@pytest.mark.parametrize(
    "verb,model", [("generate", GenerateSettings), ("invert", InvertSettings), ("serve", ServeSettings)]
)
def test_help_shows_the_description_of_every_setting(verb, model, capsys):
    printed = squeeze(read_help(capsys, verb))
    flags = find_flags(COMMAND_LINE, [verb])
    positional = {"prompt", "pictures"}
    for name in set(model.model_fields) - positional:
        assert flags[name] in printed
        assert squeeze(insert_flags(model.model_fields[name].description, flags)) in printed


def test_help_keeps_brackets_and_names_flags(capsys):
    printed = " ".join(read_help(capsys, "serve").split())
    assert "needs diffusekit[mcp]" in printed
    assert "requires --auth or --token" in printed and "`" not in printed


@pytest.mark.parametrize("words", [words for words, command in COMMANDS.items() if hasattr(command, "commands")])
def test_the_list_of_verbs_shows_whole_sentences(words, capsys):
    printed = read_help(capsys, *words)
    assert "..." not in printed.partition("Commands:")[2]


def test_without_a_verb_the_help_is_printed(capsys):
    assert run([]) == 2
    printed = capsys.readouterr()
    assert printed.err == ""
    assert run(["--help"]) == 0
    assert capsys.readouterr().out.strip() == printed.out.strip()
    assert all(f"  {verb} " in printed.out for verb in VERBS) and "visualize" not in printed.out
    assert run(["visualize", "--help"]) == 0


def test_settings_are_named_as_the_flags_of_the_verb():
    flags = find_flags(COMMAND_LINE, ["generate", "a cat", "--steps", "2"])
    assert insert_flags("set `guidance_scale` to 1, or use fewer `images`", flags) == (
        "set --guidance to 1, or use fewer --images"
    )
    assert insert_flags("`resume` is not a flag of generate", flags) == "`resume` is not a flag of generate"
    assert insert_flags("set `resume`", find_flags(COMMAND_LINE, ["invert", "my_cat"])) == "set --resume"
    assert insert_flags("set `overwrite`", find_flags(COMMAND_LINE, ["embeddings", "import", "x.pt"])) == (
        "set --overwrite"
    )
