"""The models that requests to a server may name, and the one that is used when a request names none."""

from __future__ import annotations

from functools import lru_cache

from .. import hub, model_files, models
from ..errors import DiffusekitError, ModelError, UsageError
from ..model_files import SamplingDefaults
from ..settings import ServeSettings
from .errors import ModelNotUsable


class ServerModels:
    """The models of one server. Safe to use from any thread.

    `default` is the model of requests that name none. A1111's clients choose it for all (`/sdapi/v1/options`), so
    every part of the server asks here. `is_loaded` says whether a model is in memory.
    """

    def __init__(self, settings: ServeSettings):
        self._settings = settings
        self.default = settings.model
        self.is_loaded = False

    def names(self) -> dict[str, str]:
        """What requests may say for `model`, and the name that `models.load` takes for each."""
        model = self._settings.model
        return {hub.record_name(model): model} | {name: name for name in hub.installed()}

    def resolve(self, name: object, error: type[UsageError] = UsageError) -> str:
        """The name for `models.load` of what a request says; raises `error` for a model that is not here."""
        known = self.names()
        if name == self._settings.model:
            return self._settings.model
        if not isinstance(name, str) or name not in known:
            raise error(f"model {str(name)[:100]!r} is not one this server has", f"there are: {', '.join(known)}")
        return known[name]

    def choose_default(self, name: object) -> None:
        """Choose the default by what a request says; raises `ModelNotUsable` for one that cannot be loaded."""
        model = self.resolve(name, ModelNotUsable)
        try:
            place = hub.locate(model)
            model_files.read_model(place.name, place.folder)
        except ModelError as error:
            raise ModelNotUsable(f"the model {str(name)[:100]} cannot be loaded: {error.message}", error.hint) from None
        self.default = model

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
