"""No value of a setting or argument makes a command end with "unexpected"."""

import pytest

from diffusekit.cli import generate
from diffusekit.cli.main import run

HOSTILE = [
    *("", " ", "²", "٣", "-1", "-0", "1e309", "nan", "inf", "-inf", "1_0", "0x10", "9" * 400, "9" * 5000, "x" * 300),
    *("²x8", "٣x8", "\0", "猫", "true", "../..", "file/x", ",", "[", "{}", "\udcff", "None", "0.1"),
]
SETTINGS = {
    ("generate", "a cat"): "--steps --guidance --sampler --seed --images --width --height --batch --size -o --format "
    "--prompts --negative --prompt-syntax --dtype",
    ("visualise", "compare", "a cat"): "-o",
    ("serve",): "--port --queue --max-steps --max-prompt",
}
ARGUMENTS = [("info",), ("again",), ("embeddings", "show"), ("embeddings", "export"), ("embeddings", "import")]
COMMANDS = [(*verb, flag) for verb, flags in SETTINGS.items() for flag in flags.split()] + ARGUMENTS


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_hostile_value_is_used_or_refused_with_a_hint(capsys, monkeypatch, tmp_path, command):
    monkeypatch.setattr(generate, "run", lambda *_: None)
    monkeypatch.setattr("diffusekit.server.serve.listen", lambda *_: pytest.skip("a value that can be used"))
    (tmp_path / "file").write_text("")
    for value in HOSTILE:
        if command[0] == "serve" and value in ("-0", "٣", "1_0"):  # numbers, with which the server would start
            continue
        code = run([*command, value])
        error = capsys.readouterr().err
        assert code in (0, 2, 3, 7, 8), (value[:20], code, error)
        assert code == 0 or "\nhint: " in error, (value[:20], error)
        assert "unexpected " not in error.replace("Got unexpected extra argument", ""), (value[:20], error)
