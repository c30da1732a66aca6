"""Learned tokens of textual inversion: read, check, save, find, convert and inspect them.

This package owns the file formats of learned tokens, which `embeddings/README.md` describes.
"""

from .arithmetic import combine, interpolate
from .files import import_token, read, save
from .formats import ENDINGS
from .formats.export import EXPORT_FORMATS, export_token
from .lookup import find_mentions, list_files, load_token, tokens_in_prompts
from .names import name_error, safe_name, token_error
from .omissions import find_omissions, list_omitted
from .token import MAX_VECTORS, LearnedToken, check, check_compatible, decode_vectors, encode_vectors, key_suffix
from .vocabulary import Vocabulary, make_vocabularies

__all__ = [
    "ENDINGS",
    "EXPORT_FORMATS",
    "MAX_VECTORS",
    "LearnedToken",
    "Vocabulary",
    "check",
    "check_compatible",
    "combine",
    "decode_vectors",
    "encode_vectors",
    "export_token",
    "find_mentions",
    "find_omissions",
    "import_token",
    "interpolate",
    "key_suffix",
    "list_files",
    "list_omitted",
    "load_token",
    "make_vocabularies",
    "name_error",
    "read",
    "safe_name",
    "save",
    "token_error",
    "tokens_in_prompts",
]
