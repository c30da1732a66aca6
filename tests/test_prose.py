"""Plain English: phrases that no text of the project uses, and how long the sentences of its documents are."""

import ast
import re
from pathlib import Path

import pytest

from tests.helpers import ROOT
from tests.helpers.prose import measure

# Phrases that read as translated, metaphors, British spellings. The right side says what to write.
BANNED = {
    r"bit by bit": "bit-exactly",
    r"from nothing": "from scratch",
    r"by chance": "random",
    r"may you\b": "check the folder's permissions",
    r"\bwhoever\b": "the caller, everyone who",
    r"\bsittings?\b(?! in the same pose)": "fine-tuning run",
    r"\bso many\b": "say how many",
    r"(?<!there )\bis no (?!longer\b|more\b|such\b|need\b|file\b|model\b|network\b|folder\b|GPU\b)": "is not a",
    r"\b(is|are) wanted\b": "expected X, got Y",
    r"\blikest\b|\bobedien\w+": "most similar, editability",
    r"\boverheard\b|\bput (its|their|her) things down\b|\bapprentice\b": "say what happens",
    r"\bends? of patience|an end to patience": "timeout",
    r"\bpictures? at once\b": "batch size",
    r"\b(centre[ds]?|labelled|grey)\b|\b(neighbour|colour|behaviour|favour)": "American spelling",
    r"\b(optimis|normalis|initialis|recognis)\w+": "American spelling",
}
SUFFIXES = {".py", ".md", ".html", ".js", ".css", ".toml"}
FOLDERS = ("diffusekit", "training", "benchmarks", "docs", "embeddings")
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/decisions.md",
    "docs/generate.md",
    "docs/inversion.md",
    "docs/measurements.md",
    "docs/serving.md",
    "docs/visualise.md",
    "embeddings/README.md",
    "training/mini/README.md",
    "diffusekit/mini/README.md",
)


def texts() -> list[Path]:
    below = [p for folder in FOLDERS for p in (ROOT / folder).rglob("*")]
    top = [p for p in ROOT.iterdir() if p.name != "CHANGELOG.md"]  # names what was renamed
    return sorted(p for p in [*below, *top] if p.suffix in SUFFIXES and p.is_file())


@pytest.mark.parametrize("phrase", BANNED)
def test_no_text_of_the_project_uses_a_banned_phrase(phrase):
    uses = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in texts()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(phrase, line, re.IGNORECASE)
    ]
    assert not uses, f"write: {BANNED[phrase]}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documents_have_short_sentences(document):
    """20 words on average (and a margin of two), a sentence of more than 35 is rare, and so is a semicolon."""
    prose = measure((ROOT / document).read_text(encoding="utf-8"))
    assert prose.words_per_sentence <= 22
    assert prose.long <= 0.05 * prose.sentences + 1
    assert prose.semicolons_per_hundred <= 5


def test_library_messages_name_settings_not_flags():
    """Only the command line knows flags: below it, a message says `overwrite`, never the flag."""
    flag = re.compile(r"(?<![\w(;\"'-])--[a-z][a-z-]+(?!:)\b")
    uses = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.value[:100]}"
        for path in (ROOT / "diffusekit").rglob("*.py")
        if "cli" not in path.relative_to(ROOT).parts
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if " " in node.value and "color-scheme" not in node.value and flag.search(node.value)
    ]
    assert not uses
