"""The LoRA files with which an image was made: by name, by the hash in its record, or refused."""

import logging
from collections.abc import Mapping
from pathlib import Path

from ..errors import ModelError, UsageError
from ..lora_request import LoraRequest, find_tags, parse_request, rename_tags
from ..settings import GenerateSettings

log = logging.getLogger(__name__)


def find_loras(settings: GenerateSettings, hashes: Mapping[str, str]) -> GenerateSettings:
    """Return the settings with the LoRA names that mean the same files here. `hashes` are those of the record.

    A file of another name is found by its hash. Warns of a file that has changed. Raises `ModelError` for a LoRA that
    is not here.
    """
    requests = [parse_request(text) for text in settings.lora]
    in_prompt = _requests_in(settings.prompt) if settings.prompt_syntax == "a1111" else []
    names = {each.name: _find(each.name, hashes.get(each.name, "")) for each in requests}
    moved = {each.name: _find(each.name, hashes.get(each.name, ""), listed=True) for each in in_prompt}
    lora = tuple(str(LoraRequest(names[each.name], each.text_encoder, each.unet)) for each in requests)
    prompt = rename_tags(settings.prompt, {old: new for old, new in moved.items() if old != new})
    return settings.model_copy(update={"lora": lora, "prompt": prompt})


def _requests_in(prompt: str) -> list[LoraRequest]:
    try:
        return [parse_request(text) for _, _, text in find_tags(prompt)]
    except ValueError:  # the run refuses such a tag with its reason
        return []


def _find(name: str, sha256: str, *, listed: bool = False) -> str:
    """Return the name or path of the file that a record means; `listed`: only a name of the listing."""
    from .. import lora

    known = lora.list_files()
    try:
        path: Path | None = lora.find_file(name)
    except UsageError:
        path = None
    if path is not None and lora.hash_lora(path).startswith(sha256):
        return name
    if found := lora.find_by_hash(sha256, known.values()):
        new = next((own for own, file in known.items() if file.resolve() == found.resolve()), "")
        if new or not listed:
            log.warning("the LoRA %s of the image was found by its hash: it is %s here", name, new or found)
            return new or str(found)
    if path is None:
        about = f" (hash {sha256[:12]})" if sha256 else ""
        raise ModelError(
            f"the image was made with the LoRA {name!r}{about}, which was not found by its name or its hash",
            f"put its file into {lora.lora_folder()}, or give another `lora` or prompt",
        )
    log.warning(
        "the LoRA %s has changed: the image was made with the hash %s, that of %s is %s; the image will differ",
        name,
        sha256[:12],
        path.name,
        lora.hash_lora(path)[:12],
    )
    return name
