"""The models that requests to a server may name, and the one that is used when a request names none."""

from __future__ import annotations

import contextlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from .. import file_hashes, hub, model_files, model_names, models, places
from ..errors import DiffusekitError, ModelError, UsageError
from ..hub_aliases import ALIASES
from ..model_files import SamplingDefaults
from ..settings import ServeSettings
from .errors import ModelNotUsable


class ServerModels:
    """The models of one server. Safe to use from any thread.

    `default` is the model of requests that name none. A1111's clients choose it for all (`/sdapi/v1/options`), so
    every part of the server asks here. `vae` is what they chose for their own requests, None for the model's.
    `is_loaded` says whether a model is in memory.
    """

    def __init__(self, settings: ServeSettings):
        self._settings = settings
        self.default = settings.model
        self.vae: str | None = None
        self.is_loaded = False

    def names(self) -> dict[str, str]:
        """What requests may say for `model`, and the name that `models.load` takes for each."""
        model, found = self._settings.model, {}
        for name, path in hub.installed().items():
            # a name that would be a path of this machine becomes the last two parts of it
            found["/".join(path.parts[-2:]) if Path(name).is_absolute() else name] = name
        return {hub.record_name(model): model} | found

    def resolve(self, name: object, error: type[UsageError] = UsageError) -> str:
        """The name for `models.load` of what a request says; raises `error` for a model that is not here.

        Besides those in `names`, a request may say a file name, a title of A1111 with its hash, or an alias.
        """
        known = self.names()
        if name == self._settings.model:
            return self._settings.model
        if isinstance(name, str) and name in known:
            return known[name]
        path = _find(name, error) if isinstance(name, str) else None
        if path is None:
            raise error(f"model {str(name)[:100]!r} is not one this server has", f"there are: {', '.join(known)}")
        return path

    def choose_default(self, name: object) -> None:
        """Choose the default by what a request says; raises `ModelNotUsable` for one that cannot be loaded."""
        model = self.resolve(name, ModelNotUsable)
        try:
            place = hub.locate(model)
            model_files.read_model(place.name, place.folder)
        except ModelError as error:
            raise ModelNotUsable(f"the model {str(name)[:100]} cannot be loaded: {error.message}", error.hint) from None
        self.default = model

    def choose_vae(self, name: object) -> None:
        """Choose the VAE of A1111's requests that name none; raises `UsageError` for one that is not here."""
        self.vae = self.resolve_vae(name)

    def resolve_vae(self, name: object) -> str | None:
        """The value of `vae` for what a request says; None for the model's own. Raises `UsageError`."""
        if name in (None, "", "Automatic", "automatic", "None"):
            return None
        if isinstance(name, str) and not Path(name).is_absolute():
            with contextlib.suppress(UsageError, ModelError):
                if found := model_names.find_file("vae", name):
                    return next(key for key, file in model_names.short_names("vae").items() if file.path == found.path)
        names = ", ".join(["Automatic", *(entry["model_name"] for entry in self.list_vae())])
        raise UsageError(f"vae {str(name)[:100]!r} is not one this server has", f"there are: {names}")

    def list_a1111(self) -> list[dict[str, Any]]:
        """The models as A1111 lists them. A hash is there once it was computed for a record."""
        files = {str(file.path): file for file in places.list_files("model")}
        rows = []
        for title, name in self.names().items():
            file = files.get(str(hub.installed().get(name, name)))
            sha256 = file_hashes.known_sha256(file.path) if file is not None and file.path.is_file() else ""
            full = f"{file.name} [{sha256[:10]}]" if file and sha256 else file.name if file else title
            hashes = {"hash": sha256[:10] or None, "sha256": sha256 or None}
            rows.append(
                {"title": full, "model_name": title, **hashes, "filename": file.name if file else "", "config": None}
            )
        return rows

    def list_vae(self) -> list[dict[str, str]]:
        """The VAE files as A1111 lists them."""
        return [{"model_name": file.path.name, "filename": file.name} for file in places.list_files("vae")]

    @property
    def a1111_title(self) -> str:
        """What A1111's clients see as the current model."""
        return next(
            (row["title"] for row in self.list_a1111() if row["model_name"] == self.default_title), self.default_title
        )

    @property
    def default_title(self) -> str:
        """What requests say for the default model."""
        return self.title_of(self.default)

    def title_of(self, model: str) -> str:
        """What requests say for a model, given its name for `models.load`."""
        return next((title for title, name in self.names().items() if name == model), hub.record_name(model))

    def describe(self, model: str) -> models.ModelInfo | None:
        """Native size and defaults of a model, from its files; None if they cannot be read."""
        try:
            return _describe(model)
        except (DiffusekitError, OSError, ValueError, KeyError):
            return None

    def defaults_of(self, model: str) -> SamplingDefaults:
        """The steps, the sampler and the guidance of requests that name none."""
        info = self.describe(model)
        return info.defaults if info else SamplingDefaults()

    def load_default(self) -> None:
        """Bring the default model into memory."""
        models.load_for(self._settings, self.default)
        self.is_loaded = True


@lru_cache(maxsize=8)
def _describe(model: str) -> models.ModelInfo:
    return models.describe(model)


def _find(name: str, error: type[UsageError]) -> str | None:
    """Find a model in the user's folders or by its alias. Messages have no paths of this machine."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        return None
    try:
        if alias := ALIASES.get(name.lower()):
            hub.locate(alias.id, fetch=False)
            return alias.id
        found = model_names.find_file("model", name)
    except UsageError:
        raise error(f"several models of this server are called {name[:100]!r}", "say a longer name") from None
    except ModelError:
        return None  # the hash in a title is that of another file
    return str(found.path) if found else None
