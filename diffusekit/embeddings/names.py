"""Names and tokens that are safe on every file system and in a prompt."""

import difflib
import re
import unicodedata
from collections.abc import Sequence

MAX_NAME = 100
_MAX_NAME_BYTES = 200  # leaves room for an ending and a temporary prefix below the 255 of file systems
_RESERVED = {"CON", "PRN", "AUX", "NUL"} | {f"{p}{i}" for p in ("COM", "LPT") for i in range(1, 10)}


def name_error(name: str) -> str:
    """Say what is wrong with `name` as the name of a file on any system ("is empty"), or return ""."""
    if not name:
        return "is empty"
    if len(name) > MAX_NAME or len(name.encode("utf-8", "replace")) > _MAX_NAME_BYTES:
        return f"has {len(name)} characters, expected at most {MAX_NAME}"
    if not all(c.isprintable() for c in name):
        return "has invisible characters"
    if re.search(r"[^\w.-]", name):
        return "has characters other than letters, digits, '_', '-' and '.'"
    if ".." in name or name[0] in ".-" or name[-1] in ".":
        return "starts or ends with a dot, starts with a dash, or has two dots in a row"
    if name.partition(".")[0].upper() in _RESERVED:
        return "is reserved by Windows"
    if unicodedata.normalize("NFC", name) != name:
        return "is not in Unicode normalization form NFC"
    return ""


def safe_name(text: str) -> str:
    """Make a safe name from any text: "My Cat!" gives "My_Cat", "" gives "token"."""
    text = unicodedata.normalize("NFKC", text.encode("utf-8", "ignore").decode())
    name = re.sub(r"\.{2,}|[^\w.-]+", "_", text)[:MAX_NAME]
    name = name.encode()[:_MAX_NAME_BYTES].decode("utf-8", "ignore").strip("_.-")
    if not name:
        return "token"
    if name.partition(".")[0].upper() in _RESERVED:
        name = f"token_{name}"
    return name if not name_error(name) else "token"


def name_of(stem: str) -> str:
    """Return the name of a token whose file has this `stem`: the stem itself, made safe if necessary."""
    return stem if not name_error(stem) else safe_name(stem)


def find_near(name: str, names: Sequence[str], count: int = 1) -> list[str]:
    """Return the `names` that are most like `name`, the nearest first. Capitals do not matter."""
    lowered = {known.lower(): known for known in names}
    return [lowered[near] for near in difflib.get_close_matches(name_of(name).lower(), lowered, count, 0.5)]


def spellings(token: str, name: str, word: str = "", stem: str = "") -> tuple[str, ...]:
    """List how a prompt can mention a token: the token, <name>, <stem> and the bare name, without repeats.

    A name that is a `word` of the model is left out, because in a prompt it keeps its meaning. The file's `stem`
    differs from the name if it has spaces, for example.
    """
    bare = () if name == word else (name,)
    return tuple(dict.fromkeys((token, f"<{name}>", *([f"<{stem}>"] if stem else []), *bare)))


def token_error(token: str) -> str:
    """Say what is wrong with `token` as a word in prompts ("is empty"), or return ""."""
    if not token:
        return "is empty"
    if len(token) > MAX_NAME:
        return f"has {len(token)} characters, expected at most {MAX_NAME}"
    if any(c.isspace() for c in token):
        return "has white space"
    if not all(c.isprintable() for c in token):
        return "has invisible characters"
    if token.isascii() and not any(c.isalnum() for c in token):
        return "has only punctuation, which has a meaning of its own in prompts"
    return ""
