"""Find the model that an image was made with, and compare it with what is here now."""

import logging
from typing import TYPE_CHECKING

from ..errors import ModelError

if TYPE_CHECKING:
    from ..metadata import Record

log = logging.getLogger(__name__)


def find_model(record: "Record", given: str | None) -> str:
    """Return the name, for `models.load`, of the model to make a recorded image again with.

    `given` is the model that the user names. Warns when it is not the recorded one but has its name. Raises
    `ModelError` when a local model is not known here.
    """
    from .. import models

    recorded = record.settings.model
    name = given or recorded
    if record.model_hash and given is None:
        folder = models.find_by_hash(record.model_hash)
        if folder is not None:
            return str(folder)
        try:
            models.locate(name)
        except ModelError:
            raise ModelError(
                f"the image was made with the local model {recorded!r} (hash {record.model_hash[:10]}), "
                "which was not found by its name or its hash",
                "give its folder or file with `model`",
            ) from None
    if record.model_hash:
        _compare_hashes(record, name)
    elif record.revision and "/" in recorded:
        _compare_revisions(record, name)
    return name


def find_vae(record: "Record", given: str | None) -> str | None:
    """Return what `vae` should be to make a recorded image again with; `given` is the VAE that the user names.

    Raises `ModelError` when the recorded VAE is not known here.
    """
    from .. import models

    if given is not None or not record.settings.vae:
        return given
    path = models.find_by_hash(record.vae_hash) if record.vae_hash else None
    if path is None:
        raise ModelError(
            f"the image was made with the VAE {record.settings.vae!r} (hash {record.vae_hash[:10]}), "
            "which was not found",
            "give its file with `vae`",
        )
    return str(path)


def _compare_hashes(record: "Record", name: str) -> None:
    from .. import models

    place = models.locate(name)
    if place.name != record.settings.model or place.revision:
        return  # another model, as the user asked
    found = models.hash_model(place.folder, half=record.dtype not in ("", "float32"))
    if found != record.model_hash:
        log.warning(
            "the model %s has changed: the image was made with the hash %s, that of the folder is %s; "
            "the image will differ",
            place.name,
            record.model_hash[:10],
            found[:10],
        )


def _compare_revisions(record: "Record", name: str) -> None:
    from .. import models

    place = models.locate(name)
    if place.name == record.settings.model and place.revision != record.revision:
        log.warning(
            "the image was made with revision %s of %s, and %s is used; give %s@%s with `model` for the same image",
            record.revision[:12],
            place.name,
            place.revision[:12] or "a folder",
            place.name.partition("@")[0],
            record.revision,
        )
