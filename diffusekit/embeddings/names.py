"""Which names and tokens are safe, on every file system and in a prompt. Knows no files and no torch."""

import re
import unicodedata

MAX_NAME = 100
_MAX_BYTES = 200  # with an ending and a temporary prefix still below the 255 of file systems
_RESERVED = {"CON", "PRN", "AUX", "NUL"} | {f"{p}{i}" for p in ("COM", "LPT") for i in range(1, 10)}


def name_error(name: str) -> str:
    """What is wrong with `name` as the name of a file anywhere ("is empty"); "" if nothing is."""
    if not name:
        return "is empty"
    if len(name) > MAX_NAME or len(name.encode("utf-8", "replace")) > _MAX_BYTES:
        return f"is {len(name)} characters long, at most {MAX_NAME} are wanted"
    if not all(c.isprintable() for c in name):
        return "holds characters that cannot be seen"
    if re.search(r"[^\w.-]", name):
        return "holds other characters than letters, digits, '_', '-' and '.'"
    if ".." in name or name[0] in ".-" or name[-1] in ".":
        return "begins or ends with a dot or a dash, or holds two dots"
    if name.partition(".")[0].upper() in _RESERVED:
        return "is reserved by Windows"
    if unicodedata.normalize("NFC", name) != name:
        return "is not in Unicode's composed form (NFC)"
    return ""


def safe_name(text: str) -> str:
    """A safe name made of any text: "My Cat!" gives "My_Cat", "" gives "token"."""
    text = unicodedata.normalize("NFKC", text.encode("utf-8", "ignore").decode())
    name = re.sub(r"\.{2,}|[^\w.-]+", "_", text)[:MAX_NAME]
    name = name.encode()[:_MAX_BYTES].decode("utf-8", "ignore").strip("_.-")
    if not name:
        return "token"
    if name.partition(".")[0].upper() in _RESERVED:
        name = f"token_{name}"
    return name if not name_error(name) else "token"


def name_of(stem: str) -> str:
    """The name of a token whose file is called `stem`: the stem itself where it is safe."""
    return stem if not name_error(stem) else safe_name(stem)


def spellings(token: str, name: str, word: str = "") -> tuple[str, ...]:
    """What a token answers to in a prompt, without repeats: itself, <name>, and the name alone.

    Not the name alone where it is a `word` that the model knows: prompts must go on to say that word.
    """
    alone = () if name == word else (name,)
    return tuple(dict.fromkeys((token, f"<{name}>", *alone)))


def token_error(token: str) -> str:
    """What is wrong with `token` as a word of prompts ("is empty"); "" if nothing is."""
    if not token:
        return "is empty"
    if len(token) > MAX_NAME:
        return f"is {len(token)} characters long, at most {MAX_NAME} are wanted"
    if any(c.isspace() for c in token):
        return "holds white space"
    if not all(c.isprintable() for c in token):
        return "holds characters that cannot be seen"
    if token.isascii() and not any(c.isalnum() for c in token):
        return "is only punctuation, which prompts use for themselves"
    return ""
