"""The LoRA files of one generation: those of the settings, and those that the tags of each prompt ask for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..display import quote
from ..errors import UsageError
from ..lora_request import LoraRequest, parse_request
from ..model_files import SamplingDefaults, find_lora_defaults
from ..models import Model
from ..prompt import parse
from ..settings import GenerateSettings
from .adapter import LoraAdapter, LoraMatch, match_layers
from .files import find_file, name_of
from .weights import LoraWeights, load_lora


class LoraSelection:
    """The LoRA files that a generation uses, loaded and compared with its model.

    `matches` has one entry for each file, and `warnings` are sentences about what of them has no effect. `settings`
    are the requests for all prompts with the names that records use.
    """

    def __init__(
        self,
        model: Model,
        settings: Sequence[str] = (),
        prompts: Sequence[str] = (),
        *,
        syntax: str = "plain",
        folder: Path | str | None = None,
    ):
        """`settings` are `NAME:0.8` for all prompts; in A1111's `syntax`, the tags of a prompt count for it alone.

        `folder` is searched first. Raises `UsageError` for a name without a file, and `FileRefused` for a file
        that cannot be used or does not fit the model.
        """
        self._model, self._folder = model, folder
        self._files: dict[str, LoraWeights] = {}  # by the name that was asked for
        self._adapters: dict[tuple[LoraRequest, ...], LoraAdapter] = {}
        self.matches: list[LoraMatch] = []
        self.warnings: list[str] = []
        common = [parse_request(text) for text in settings]
        tags = {prompt: parse(prompt, 1, syntax=syntax).loras for prompt in prompts}
        for request in (*common, *(each for one in tags.values() for each in one)):
            self._load(request.name)
        own = tuple(map(self._rename, common))
        self._requests = {prompt: (*own, *map(self._rename, each)) for prompt, each in tags.items()}
        self.settings = tuple(map(str, own))

    @classmethod
    def of(
        cls, settings: GenerateSettings, prompts: Sequence[str], model: Model, folder: Path | str | None = None
    ) -> LoraSelection:
        """Load what the settings and the tags of the prompts ask for."""
        return cls(model, settings.lora, prompts, syntax=settings.prompt_syntax, folder=folder)

    @property
    def is_uniform(self) -> bool:
        """Whether all prompts use the same files with the same strengths."""
        return len(set(self._requests.values())) < 2

    @property
    def defaults(self) -> SamplingDefaults | None:
        """What suits the model with these files, if one of them is for few steps and applies to every prompt."""
        shared = [request for request in next(iter(self._requests.values()), ()) if request.unet]
        for name in (r.name for r in shared if all(r in requests for requests in self._requests.values())):
            header = self._by_name()[name].header
            if found := find_lora_defaults(name, header.alias):
                return found
        return None

    def requests(self, prompt: str) -> tuple[LoraRequest, ...]:
        """Return what applies to a prompt, under the names of records."""
        return self._requests[prompt]

    def are_equal(self, first: str, second: str) -> bool:
        """Whether the same applies to two prompts."""
        return self._requests[first] == self._requests[second]

    def adapter(self, prompt: str) -> LoraAdapter:
        """Return the adapter for a prompt. The last one stays in memory."""
        requests = self._requests[prompt]
        if requests not in self._adapters:
            known = self._by_name()
            self._adapters = {requests: LoraAdapter(self._model, [(known[each.name], each) for each in requests])}
        return self._adapters[requests]

    def hashes(self, prompt: str) -> dict[str, str]:
        """Return the SHA-256 of the files that apply to a prompt, by name."""
        known = self._by_name()
        return {request.name: known[request.name].sha256 for request in self._requests[prompt]}

    def _by_name(self) -> dict[str, LoraWeights]:
        return {name_of(each.header.path): each for each in self._files.values()}

    def _rename(self, request: LoraRequest) -> LoraRequest:
        """Return a request with the name that records use instead of a path."""
        name = name_of(self._files[request.name].header.path)
        return LoraRequest(name, request.text_encoder, request.unet)

    def _load(self, name: str) -> None:
        """Load the file of a name, unless it is there already, and compare it with the model."""
        if name in self._files:
            return
        weights = load_lora(find_file(name, self._folder))
        match = match_layers(self._model, weights, name_of(weights.header.path))
        known = {own: each.header.path.resolve() for own, each in self._by_name().items()}
        self._files[name] = weights
        if match.name in known:
            if known[match.name] != weights.header.path.resolve():
                raise UsageError(f"two LoRA files have the name {match.name}", "rename one of them")
            return
        self.matches.append(match)
        if match.unmatched:
            others = f"the others have no effect, the first one is {quote(match.unmatched, 100)}"
            self.warnings.append(f"{match} of the model {self._model.name}; {others}")
        if weights.header.ignored:
            self.warnings.append(f"the embeddings inside the LoRA {match.name} are not read and have no effect")
