"""Learned tokens of textual inversion: read, check, write, find and inspect. Knows no prompts' states.

The one owner of the file formats of learned tokens (`embeddings/README.md` describes them).
"""

from .arithmetic import combine, interpolate
from .formats.export import KINDS, export
from .formats.native import read, save
from .formats.pickle_sandbox import import_pickle
from .lookup import FOLDER, available, find, find_spellings, named_in
from .names import name_fault, safe_name, token_fault
from .token import MAX_VECTORS, LearnedToken, check, fits, pack, unpack
from .vocabulary import Vocabulary

__all__ = [
    "FOLDER",
    "KINDS",
    "MAX_VECTORS",
    "LearnedToken",
    "Vocabulary",
    "available",
    "check",
    "combine",
    "export",
    "find",
    "find_spellings",
    "fits",
    "import_pickle",
    "interpolate",
    "name_fault",
    "named_in",
    "pack",
    "read",
    "safe_name",
    "save",
    "token_fault",
    "unpack",
]
