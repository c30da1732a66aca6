"""ComfyUI's graph of nodes, and the values that flow through it: texts, numbers and names.

Thousands of extensions add nodes. A value that a node computes in a way that is not known here raises `Untraceable`,
which names the node. The graph is untrusted: depth, visits and lengths are limited.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from ..display import printable
from ..settings import MAX_PROMPT

_MAX_VISITS, _MAX_DEPTH = 20_000, 100
Link = tuple[str, int]
T = TypeVar("T")

_TEXT_KEYS = ("value", "string", "text", "prompt", "content", "str", "positive", "negative", "text_string", "input")
_NUMBER_KEYS = ("value", "int", "float", "number", "int_value", "float_value")
_PARTS = re.compile(r"(?:string|text|prompt|part|str|input|value)_?(?:[a-z]|\d+)", re.IGNORECASE)
# Nodes whose result is not what was typed into them.
_COMPUTED = re.compile(
    "translat|llm|gpt|ollama|caption|tagger|interrogat|wildcard|random|dynamic|generat|enhanc|upsampl|load|file|regex"
    "|extract|pars|split|styl|math|expression|aspect|ratio|resolution|clamp|increment",
    re.IGNORECASE,
)
_TRANSPARENT = re.compile(
    "reroute|show|display|preview|primitive|pass|constant|literal|string|text|number|int|float|seed|getnode|setnode",
    re.IGNORECASE,
)
# Separators that nodes call by a word.
_SEPARATORS = {"none": "", "false": "", "space": " ", "comma": ", ", "newline": "\n", "true": "\n"}
_CASES: dict[str, Callable[[str], str]] = {
    "uppercase": str.upper,
    "lowercase": str.lower,
    "capitalize": str.capitalize,
    "title case": str.title,
}
_TRIMS: dict[str, Callable[[str], str]] = {"both": str.strip, "left": str.lstrip, "right": str.rstrip}


class Untraceable(Exception):
    """A value that cannot be known. The text says why: "comes from node 20 of class Wildcards"."""


@dataclass(frozen=True)
class Node:
    """One node: its class, and its inputs, which are values or links to other nodes."""

    id: str
    kind: str
    inputs: Mapping[str, Any]

    @property
    def links(self) -> dict[str, Link]:
        return {name: link for name, value in self.inputs.items() if (link := as_link(value))}

    @property
    def values(self) -> dict[str, Any]:
        return {name: value for name, value in self.inputs.items() if not as_link(value)}

    @property
    def origin(self) -> str:
        """Where a value comes from, for a message."""
        return f"comes from node {printable(self.id, limit=20)} of class {printable(self.kind, limit=60)}"


def as_link(value: Any) -> Link | None:
    """Return the node and the slot that an input is linked to, or None for a plain value."""
    if not (isinstance(value, list) and len(value) == 2 and isinstance(value[1], int)):
        return None
    return (str(value[0]), value[1]) if isinstance(value[0], str | int) and len(str(value[0])) < 100 else None


class Graph:
    """The nodes of one image by id. Values are followed through links until they are found."""

    def __init__(self, nodes: Mapping[str, Node]):
        self.nodes = nodes
        self._visits = 0
        self._path: list[str] = []
        self._texts: dict[Link, str | Untraceable] = {}

    @classmethod
    def parse(cls, text: str) -> Graph | None:
        """Read the JSON of a graph; None if it is something else."""
        if not text.lstrip().startswith("{"):
            return None
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return None
        inner = found.get("prompt") if isinstance(found, dict) else None
        if isinstance(inner, str) and inner.lstrip().startswith("{"):
            return cls.parse(inner)
        if isinstance(inner, dict) and "class_type" not in inner:
            found = inner  # as it was sent to the server
        if not isinstance(found, dict):
            return None
        nodes = {
            str(number): Node(str(number), str(node["class_type"]), node["inputs"])
            for number, node in found.items()
            if isinstance(node, dict) and isinstance(node.get("inputs"), dict) and "class_type" in node
        }
        return cls(nodes) if nodes else None

    @contextmanager
    def enter(self, link: Link) -> Generator[Node]:
        """Go to the node at the other end of a link. Raises `Untraceable` for a missing one, a cycle or too many."""
        number = link[0]
        if number not in self.nodes:
            raise Untraceable(f"comes from node {printable(number, limit=20)}, which is not in the file")
        self._visits += 1
        if self._visits > _MAX_VISITS or len(self._path) > _MAX_DEPTH or number in self._path:
            raise Untraceable("comes from a graph that is too large to follow")
        self._path.append(number)
        try:
            yield self.nodes[number]
        finally:
            self._path.pop()

    def text(self, value: Any) -> str:
        """Follow a text: as it is, through primitives and reroutes, joined, replaced or trimmed by nodes."""
        if isinstance(value, str):
            return value
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        link = as_link(value)
        if link is None:
            raise Untraceable(f"is {type(value).__name__}, not text")
        if link not in self._texts:
            try:
                with self.enter(link) as node:
                    found = self._text_of(node, link[1])
                    too_long = len(found) > MAX_PROMPT
                    self._texts[link] = Untraceable(f"is longer than {MAX_PROMPT} characters") if too_long else found
            except Untraceable as error:
                self._texts[link] = error
        known = self._texts[link]
        if isinstance(known, Untraceable):
            raise known
        return known

    def number(self, value: Any, names: Sequence[str]) -> int | float:
        """Follow a number. `names` are what the input is called in nodes that hold several values."""
        return self._follow(value, (*names, *_NUMBER_KEYS), _as_number)

    def name(self, value: Any, names: Sequence[str]) -> str:
        """Follow the name of a sampler or schedule."""
        return self._follow(value, (*names, *_TEXT_KEYS), lambda v: v if isinstance(v, str) else None)

    def _follow(self, value: Any, names: Sequence[str], convert: Callable[[Any], T | None]) -> T:
        link = as_link(value)
        if link is None:
            found = convert(value)
            if found is None:
                raise Untraceable(f"is {printable(repr(value), limit=40)}")
            return found
        with self.enter(link) as node:
            inputs = {name.lower(): v for name, v in node.inputs.items()}
            is_range = any(name.startswith(("min", "max")) for name in inputs)
            is_seed = ("seed" in node.kind.lower() and "random" not in node.kind.lower()) or node.kind == "RandomNoise"
            if (is_seed or not _COMPUTED.search(node.kind)) and not is_range:
                for name in names:
                    if name in inputs:
                        return self._follow(inputs[name], names, convert)
                if len(node.inputs) == 1 and node.links and _TRANSPARENT.search(node.kind):
                    return self._follow(next(iter(node.inputs.values())), names, convert)
            raise Untraceable(node.origin)

    def _text_of(self, node: Node, slot: int) -> str:
        inputs = {name.lower(): value for name, value in node.inputs.items()}
        kind = node.kind.lower().replace(" ", "")
        if isinstance(inputs.get("populated_text"), str):
            return inputs["populated_text"]
        if _COMPUTED.search(node.kind):
            raise Untraceable(node.origin)
        if "concat" in kind or "join" in kind or "stringfunction" in kind or "combine" in kind:
            return self._joined(node, inputs)
        if "replace" in kind and "find" in inputs and "replace" in inputs:
            text = inputs.get("string", inputs.get("text"))
            return self.text(text).replace(self.text(inputs["find"]), self.text(inputs["replace"]))
        changes = _TRIMS if "trim" in kind else _CASES if "case" in kind else {}
        if (mode := str(inputs.get("mode", "")).lower()) in changes:
            return changes[mode](self.text(inputs.get("string", inputs.get("text"))))
        if "switch" in kind:
            return self.text(selected_input(node))
        texts = [name for name in _TEXT_KEYS if name in inputs]
        plain = {name for name, value in node.values.items() if name.lower() not in texts and value not in ("", None)}
        if len(texts) == 1 and not plain and slot == 0:
            value = inputs[texts[0]]
            if not as_link(value) or _TRANSPARENT.search(node.kind):
                return self.text(value)
        if len(node.links) == 1 and _TRANSPARENT.search(node.kind):  # a node that shows a text has what it showed too
            return self.text(next(v for v in node.inputs.values() if as_link(v)))
        raise Untraceable(node.origin)

    def _joined(self, node: Node, inputs: Mapping[str, Any]) -> str:
        """The result of a node that joins texts: a, b, … or 1, 2, …, with what it puts between them."""
        names = [name for name in inputs if _PARTS.fullmatch(name)]
        separator = next((inputs[n] for n in ("delimiter", "separator", "linebreak_addition") if n in inputs), "")
        if not names or inputs.get("action", "append") != "append":
            raise Untraceable(node.origin)
        between = self.text(separator)
        between = _SEPARATORS.get(between.lower(), between.replace("\\n", "\n"))
        parts = [self.text(inputs[name]) for name in names if inputs[name] is not None]
        if inputs.get("tidy_tags") == "yes":
            return re.sub(r"\s{2,}", " ", ", ".join(filter(None, parts))).replace(" ,", ",").strip()
        if "clean_whitespace" in inputs:  # this one leaves empty texts out
            is_clean = str(inputs["clean_whitespace"]).lower() == "true"
            parts = [part for part in (p.strip() if is_clean else p for p in parts) if part]
        return between.join(parts)


def selected_input(node: Node) -> Any:
    """The input that a switch lets through. Raises `Untraceable` if that is not known."""
    inputs = {name.lower(): value for name, value in node.inputs.items()}
    choice = next((inputs[name] for name in ("select", "switch", "input", "index") if name in inputs), None)
    if isinstance(choice, bool):
        names: tuple[str, ...] = ("on_true", "true") if choice else ("on_false", "false")
    else:
        names = tuple(f"{name}{choice}" for name in ("input", "text", "string", "value", "input_", "text_"))
    for name in names:
        if name in inputs:
            return inputs[name]
    raise Untraceable(node.origin)


def _as_number(value: Any) -> int | float | None:
    if isinstance(value, str) and len(value) < 40:
        try:
            value = float(value) if "." in value else int(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if value == value else None
