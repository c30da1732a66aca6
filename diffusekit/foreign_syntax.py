"""Prompt syntax of other programs, found so that a warning can name it. diffusekit reads it as plain text.

The syntaxes are those of A1111 (weights, scheduling, LoRA tags), of its extension for random prompts, of
InvokeAI, NovelAI, ComfyUI and Midjourney. Parentheses as in "a cat (orange)" are ordinary punctuation.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

_MAX_EXAMPLE = 24  # characters of an example in a message
_ESCAPED = re.compile(r"\\[()\[\]{}\\]")
_CAPITALS = re.compile(r"[A-Z]{2,}")


@dataclass(frozen=True)
class Construct:
    """A piece of syntax: what it is, and how it is written in the prompt."""

    kind: str
    example: str

    def __str__(self) -> str:
        return f"{self.kind} {self.example}"


def _is_weight(match: re.Match[str]) -> bool:
    """Tell a weight from a time of day, a ratio or a verse: (10:30), (16:9), (John 3:16)."""
    number = match["weight"]
    return abs(float(number)) <= 10 and ("." in number or not match["text"][-1:].isdigit())


def _is_item(match: re.Match[str]) -> bool:
    """Whether a group in parentheses stands alone between commas, which no sentence does."""
    before, after = match.string[: match.start()].rstrip(" \t"), match.string[match.end() :].lstrip(" \t")
    is_alone = (not before or before[-1] in ",;\n|") and (not after or after[0] in ",;\n|")
    return is_alone and (bool(before) or bool(after))


def _is_conjunction(match: re.Match[str]) -> bool:
    """Tell AND between two prompts from the word in text that is all in capitals, like STOP AND GO."""
    before, after = _neighbors(match)
    return bool(before and after) and not (_CAPITALS.fullmatch(before) and _CAPITALS.fullmatch(after))


def _is_break(match: re.Match[str]) -> bool:
    """Tell BREAK from the word in text that is all in capitals, like PRISON BREAK."""
    return not any(_CAPITALS.fullmatch(word) for word in _neighbors(match))


def _neighbors(match: re.Match[str]) -> tuple[str, str]:
    """Return the words just before and after a match."""
    before = re.search(r"(\w+)[ \t]*$", match.string[max(match.start() - 60, 0) : match.start()])
    after = re.match(r"[ \t]*(\w+)", match.string[match.end() : match.end() + 60])
    return before[1] if before else "", after[1] if after else ""


_NUMBER = r"[+-]?(?:\d{1,4}(?:\.\d{0,8})?|\.\d{1,8})"
# Each kind with its pattern, and what tells it from ordinary text where the pattern does not. Every repetition is
# bounded, because a prompt may be hostile.
_KINDS: tuple[tuple[str, str, Callable[[re.Match[str]], bool] | None], ...] = (
    ("LoRA", r"<(?:lora|lyco|lycoris|hypernet):[^<>]{1,200}>", None),
    ("tag", r"<[A-Za-z][\w-]{0,40}:[^<>]{1,200}>", None),
    ("weight", rf"\((?P<text>[^():]{{0,200}}(?::[^():]{{0,200}}){{0,3}}):[ ]?(?P<weight>{_NUMBER})\s?\)", _is_weight),
    ("weight", rf"(?<=[^\s(])\)(?:{_NUMBER}(?![\w.])|\+{{1,9}}|-{{2,9}})", None),
    ("weight", r"[A-Za-z]{2,40}(?:\+{2,9}|-{2,9}(?=\s?(?:,|$)))", None),
    ("emphasis", r"\(\s?\([^()]{1,200}\)(?:\s?\))?", None),
    ("emphasis", r"\([^():]{1,200}\)", _is_item),
    ("scheduling", rf"\[[^\[\]]{{0,200}}:\s?{_NUMBER}\s?\]", None),
    ("alternation", r"\[[^\[\]|]{0,200}\|[^\[\]]{0,200}\]", None),
    ("emphasis", r"\[[^\[\]]{1,200}\]", None),
    ("weight", rf"(?<=\w)::{_NUMBER}(?![\w.])", None),
    ("variants", r"\{[^{}|]{0,200}\|[^{}]{0,200}\}", None),
    ("emphasis", r"\{[^{}\":]{1,200}\}", None),
    ("wildcard", r"__[A-Za-z0-9*][\w*/. -]{0,80}?__", None),
    ("embedding", r"\bembedding:[\w.-]{1,100}", None),
    ("blend", r"\)\s?\.(?:blend|and|swap)\(", None),
    ("conjunction", r"\bAND\b", _is_conjunction),
    ("chunk end", r"\bBREAK\b", _is_break),
    ("escape", r"\\[()\[\]{}]", None),
    ("flag", r"(?<!\S)--[a-z]{1,20}\b", None),
)
_A1111 = {  # kinds that A1111 knows, by their first character
    ("weight", "("),
    ("emphasis", "("),
    ("emphasis", "["),
    ("scheduling", "["),
    ("alternation", "["),
    ("LoRA", "<"),
    ("conjunction", "A"),
    ("chunk end", "B"),
    ("escape", "\\"),
}
_PATTERNS = [(kind, re.compile(pattern), check) for kind, pattern, check in _KINDS]


def find_syntax(prompt: str, tokens: Iterable[tuple[int, int]] = (), *, read: str = "plain") -> list[Construct]:
    """Find the syntax of other programs in a prompt, with one example of each kind and bracket.

    `tokens` are the spans (start, end) of learned tokens, whose spellings may look like syntax. `read` is the
    syntax in which the prompt is read: what belongs to it is not found.
    """
    plain = _hide(_ESCAPED.sub("xx", prompt), tokens)
    found: dict[tuple[str, str], Construct] = {}
    for kind, pattern, check in _PATTERNS:
        source = prompt if kind == "escape" else plain
        spans = [match.span() for match in pattern.finditer(source) if check is None or check(match)]
        for start, end in spans:
            example = _shorten(prompt[start:end])
            found.setdefault((kind, example[:1]), Construct(kind, example))
        plain = _hide(plain, spans)  # from the patterns that follow
    if read == "a1111":
        return [each for each in found.values() if (each.kind, each.example[0]) not in _A1111]
    return list(found.values())


def _hide(text: str, spans: Iterable[tuple[int, int]]) -> str:
    characters = list(text)
    for start, end in spans:
        characters[start:end] = "x" * (end - start)
    return "".join(characters)


def _shorten(example: str) -> str:
    words = " ".join(example.split())
    return words if len(words) <= _MAX_EXAMPLE else f"{words[: _MAX_EXAMPLE - 2]}…{words[-1]}"
