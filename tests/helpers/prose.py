"""Counting prose: sentences, words and semicolons of a document, without its code, tables and links.

`python -m tests.helpers.prose [FILE ...]` prints a table.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.helpers import ROOT


@dataclass(frozen=True)
class Prose:
    """What was counted in one document."""

    sentences: int
    words: int
    long: int  # sentences of more than 35 words
    semicolons: int

    @property
    def words_per_sentence(self) -> float:
        return self.words / max(self.sentences, 1)

    @property
    def semicolons_per_hundred(self) -> float:
        return 100 * self.semicolons / max(self.sentences, 1)


def paragraphs(markdown: str) -> list[str]:
    """Running text: list items and paragraphs, without code, tables, headings, images and link targets."""
    text = re.sub(r"\A---\n.*?\n---\n", "", markdown, flags=re.DOTALL)
    text = re.sub(r"```.*?```", "\n\n", text, flags=re.DOTALL)
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"`[^`\n]*`", "code", text)
    lines = ["" if re.match(r"\s*(#|\||>|<)", line) else line for line in text.splitlines()]
    joined = "\n".join(re.sub(r"^\s*([-*+]|\d+\.)\s+", "\n\n", line) for line in lines)
    return [" ".join(block.split()) for block in re.split(r"\n\s*\n", joined) if block.strip()]


def measure(markdown: str) -> Prose:
    """Count; a sentence has at least three words."""
    found = [s for p in paragraphs(markdown) for s in re.split(r"(?<=[.!?:])\s+(?=[A-Z`*\"(])", p)]
    counts = [len(re.findall(r"[A-Za-zÀ-ÿ0-9][\w'’.-]*", s)) for s in found]
    kept = [(s, n) for s, n in zip(found, counts, strict=True) if n >= 3]
    return Prose(
        len(kept),
        sum(n for _, n in kept),
        sum(n > 35 for _, n in kept),
        sum(s.count(";") for s, _ in kept),
    )


def main() -> None:
    paths = [Path(p) for p in sys.argv[1:]] or sorted(
        p for p in ROOT.rglob("*.md") if not {".venv", "node_modules"} & set(p.parts)
    )
    print("| document | sentences | words a sentence | over 35 words | semicolons per 100 |\n|---|--:|--:|--:|--:|")
    for path in paths:
        found = measure(path.read_text(encoding="utf-8"))
        print(
            f"| {path} | {found.sentences} | {found.words_per_sentence:.1f} |"
            f" {100 * found.long / max(found.sentences, 1):.0f} % | {found.semicolons_per_hundred:.0f} |"
        )


if __name__ == "__main__":
    main()
