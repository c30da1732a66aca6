"""ComfyUI: the settings of the sampler whose image was saved, from the graph in the file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from .comfyui_graph import Graph, Link, Node, Untraceable, as_link, selected_input
from .comfyui_workflow import parse_workflow
from .parameters import PROMPTS, Reading, make_reading

Role = Literal["positive", "negative"]
_MAX_SAMPLERS = 8  # that are compared when a file saves the images of several
_SAVES = re.compile("save(?!.*(?:latent|text|model|lora|checkpoint))|image ?output", re.IGNORECASE)
# Inputs that carry no image and no latents.
_ASIDE = re.compile(
    "model|clip|vae|positive|negative|cond|control_net|mask|noise|sampler|sigmas|guider|text|prompt|seed|steps|cfg|name"
    "|style|width|height|scheduler|metadata|parameters",
    re.IGNORECASE,
)
_SIZES = re.compile(r"(\d{2,5})\s*[xX×]\s*(\d{2,5})")
# Texts of a node that encodes prompts: the first group that it has.
_TEXTS = (
    ("populated_text",),
    ("text_g", "text_l"),
    ("clip_l", "clip_g", "t5xxl", "llama", "qwen25_7b"),
    ("text",),
    ("prompt",),
    ("user_prompt",),
    ("string",),
)
_RANDOM = re.compile(r"wildcard|dynamic|random", re.IGNORECASE)
_CHOICES = re.compile(r"__[\w/-]+__|\{[^{}]*\|")
_PIPES = ("basic_pipe", "pipe", "context", "base_ctx", "ctx", "guider", "any", "input", "value", "")
_CLASSES = {"eulerancestral": "euler_ancestral", "dpmadaptative": "dpm_adaptive", "lcmupscale": "lcm"}
_MODELS = ("ckpt_name", "unet_name", "model_name", "base_ckpt_name", "gguf_name", "model")


def read(texts: Mapping[str, str]) -> Reading | None:
    """Read the graph under ComfyUI's key `prompt`, or in a comment; None for other texts and if it makes no image."""
    graph = Graph.parse(texts.get("prompt", "")) or Graph.parse(texts.get("parameters", ""))
    graph = graph or parse_workflow(texts.get("workflow", ""))
    samplers = _find_samplers(graph) if graph else []
    if not graph or not samplers:
        return None
    found = [_read_sampler(graph, node) for node in samplers[:_MAX_SAMPLERS]]
    values, unknown = found[0]
    for others, reasons in found[1:]:
        unknown = reasons | unknown
        for key in {*values, *others}:
            if values.get(key) != others.get(key):
                values.pop(key, None)
                numbers = ", ".join(node.id[:20] for node in samplers[:_MAX_SAMPLERS])
                unknown.setdefault(key, f"differs between the samplers of several saved images (nodes {numbers})")
    return make_reading("ComfyUI", values, unknown)


def _is_sampler(node: Node) -> bool:
    names = node.inputs.keys()
    if {"sigmas", "guider"} <= names or {"sigmas", "sampler"} <= names:
        return True
    has_source = {"positive", "model", "latent_image", "latent", "samples", "text_embeds", *_PIPES[:5]} & names
    return "steps" in names and bool({"sampler_name", "cfg", "sampler"} & names) and bool(has_source)


def _find_samplers(graph: Graph) -> list[Node]:
    """The samplers that the saved images began with. Later ones of the same image refine it."""
    linked = {link[0] for node in graph.nodes.values() for link in node.links.values()}
    ends = [node for node in graph.nodes.values() if node.id not in linked]
    saving = [node for node in graph.nodes.values() if _SAVES.search(node.kind) and _flow(node)]
    for starts in (saving, ends):
        reached = _upstream(graph, [link for node in starts for link in _flow(node)])
        samplers = [node for node in reached if _is_sampler(node)]
        samplers = samplers or [node for node in starts if _is_sampler(node)]
        budget = len(graph.nodes) * _MAX_SAMPLERS
        first = []
        for node in samplers:
            before = _upstream(graph, _flow(node))
            budget -= len(before)
            if budget < 0:
                break
            if not any(map(_is_sampler, before)):
                first.append(node)
        if first:
            return first
    return []


def _flow(node: Node) -> list[Link]:
    """The links that may carry the image or its latents."""
    return [link for name, link in node.links.items() if not _ASIDE.search(name)]


def _upstream(graph: Graph, links: Iterable[Link]) -> list[Node]:
    """All nodes that the image comes from, the nearest first."""
    queue = list(dict.fromkeys(link[0] for link in links))
    known = set(queue)
    found = []
    for number in queue:  # grows
        if node := graph.nodes.get(number):
            found.append(node)
            new = [link[0] for link in _flow(node) if link[0] not in known]
            queue += dict.fromkeys(new)
            known.update(new)
    return found


def _read_sampler(graph: Graph, node: Node) -> tuple[dict[str, Any], dict[str, str]]:
    """The values of a sampler by A1111's keys, and why others are unknown."""
    values: dict[str, Any] = {}
    unknown: dict[str, str] = {}

    def add(key: str, get: Callable[[], Any]) -> None:
        try:
            values[key] = get()
        except Untraceable as error:
            unknown[key] = str(error)

    add("Prompt", lambda: _prompt(graph, node, "positive"))
    add("Negative prompt", lambda: _prompt(graph, node, "negative"))
    add("Steps", lambda: _find(graph, node, ("steps", "steps_total"), ("sigmas",), graph.number))
    add("Sampler", lambda: _sampler_name(graph, node))
    add("Schedule type", lambda: _schedule(graph, node))
    add("CFG scale", lambda: _guidance(graph, node))
    add("Seed", lambda: _find(graph, node, ("seed", "noise_seed"), ("noise",), graph.number))
    add("Size", lambda: _size(graph, node))
    if unknown.get("Schedule type"):  # it only names the spacing of the sampler
        unknown.setdefault("Sampler", f"has a schedule that {unknown.pop('Schedule type')}")
    values["Model"], loras = _model(graph, node)
    values["Lora"] = ", ".join(loras)
    denoise = node.inputs.get("denoise")
    if isinstance(denoise, float) and denoise < 1:
        values["Denoising strength"] = denoise
    for key in PROMPTS:
        if key in values:
            values[key] = values[key].strip()
    return values, unknown


def _find(graph: Graph, node: Node, names: tuple[str, ...], through: tuple[str, ...], read: Callable[..., Any]) -> Any:
    """Read the input called one of `names`, of this node or of those behind the links called `through`."""
    for name in names:
        if name in node.inputs:
            return read(node.inputs[name], names)
    for name in (*through, *_PIPES):
        if link := node.links.get(name):
            with graph.enter(link) as other:
                return _find(graph, other, names, through, read)
    raise Untraceable(node.origin)


def _sampler_name(graph: Graph, node: Node) -> str:
    link = node.links.get("sampler")
    if "sampler_name" not in node.inputs and link:
        with graph.enter(link) as other:
            kind = other.kind.removeprefix("Sampler").lower()
            if "sampler_name" not in other.inputs and other.kind.startswith("Sampler") and kind:
                return _CLASSES.get(kind, kind)
    return _find(graph, node, ("sampler_name",), ("sampler",), graph.name)


def _schedule(graph: Graph, node: Node) -> str:
    """The schedule by its name, or by the class of the node that makes the sigmas."""
    if "scheduler" in node.inputs:
        return graph.name(node.inputs["scheduler"], ("scheduler",))
    if link := node.links.get("sigmas"):
        with graph.enter(link) as other:
            if "scheduler" in other.inputs or "sigmas" in other.links:
                return _schedule(graph, other)
            if other.kind.endswith("Scheduler"):
                return other.kind.removesuffix("Scheduler").lower()
            raise Untraceable(other.origin)
    return ""


def _guidance(graph: Graph, node: Node) -> float:
    """The guidance scale. A guider without one uses no guidance, which is 1."""
    if "cfg" not in node.inputs and (link := node.links.get("guider")):
        with graph.enter(link) as guider:
            if guider.kind == "BasicGuider":
                return 1
            return _find(graph, guider, ("cfg", "cfg_conds"), (), graph.number)
    return _find(graph, node, ("cfg", "cfg_scale", "guidance"), ("guider",), graph.number)


def _prompt(graph: Graph, node: Node, role: Role) -> str:
    """The texts that a node's conditioning is made of, joined by commas."""
    return ", ".join(_collect_prompts(graph, node, role, 0, {}))


def _collect_prompts(
    graph: Graph, node: Node, role: Role, slot: int, known: dict[tuple[str, int], list[str]]
) -> list[str]:
    """The texts behind one output of a node: its own, or those of the nodes whose conditioning it passes on."""
    if (node.id, slot) in known:
        return known[node.id, slot]
    known[node.id, slot] = []
    if "zeroout" in node.kind.lower():
        return []
    texts = _own_texts(graph, node, role)
    if texts is None or "conditioning_to" in node.links:
        links = _conditioning_links(node, role, slot)
        if not links and role == "negative" and ("guider" in node.kind.lower() or "positive" in node.inputs):
            links = []  # it has no negative prompt
        elif not links:
            raise Untraceable(node.origin)
        own, texts = texts or [], []
        for link in links:
            with graph.enter(link) as other:
                texts += _collect_prompts(graph, other, role, link[1], known)
        texts += own
    known[node.id, slot] = list(dict.fromkeys(filter(None, texts)))
    return known[node.id, slot]


def _own_texts(graph: Graph, node: Node, role: Role) -> list[str] | None:
    """The texts that a node encodes itself; None if it only passes conditioning on."""
    value = node.inputs.get(role)
    if isinstance(value, str) or (as_link(value) and "ckpt_name" in node.inputs):
        return [graph.text(value)]
    for group in _TEXTS:
        if names := [name for name in group if name in node.inputs]:
            texts = [graph.text(node.inputs[name]) for name in names]
            if group != ("populated_text",) and _RANDOM.search(node.kind) and any(map(_CHOICES.search, texts)):
                raise Untraceable(node.origin)
            return texts
    return None


def _conditioning_links(node: Node, role: Role, slot: int) -> list[Link]:
    links = node.links
    if (
        {"positive", "negative"} <= links.keys()
        and slot < 2
        and re.search("apply|control|inpaint|cond", node.kind, re.I)
    ):
        return [links["positive" if slot == 0 else "negative"]]
    if role in links:
        return [links[role]]
    if role == "negative" and "guider" in node.kind.lower():
        return []
    if "switch" in node.kind.lower() and (link := as_link(selected_input(node))):
        return [link]
    for start in (role, "cond"):
        if named := [link for name, link in links.items() if start in name.lower()]:
            return named
    if piped := [links[name] for name in _PIPES if name in links]:
        return piped[:1]
    rest = [link for name, link in links.items() if not re.search("clip|vae|model|net|image|mask|latent|pix", name)]
    return rest if len(rest) == 1 and not _is_sampler(node) else []


def _size(graph: Graph, node: Node) -> str:
    """The size of the empty latents that a sampler starts from."""
    for start in (node, *_upstream(graph, [*_flow(node), *(node.links[p] for p in _PIPES[:5] if p in node.links)])):
        inputs = start.inputs
        for prefix in ("", "empty_latent_"):
            if {f"{prefix}width", f"{prefix}height"} <= inputs.keys():
                width = graph.number(inputs[f"{prefix}width"], ("width", "empty_latent_width"))
                height = graph.number(inputs[f"{prefix}height"], ("height", "empty_latent_height"))
                return f"{width}x{height}"
        for name in ("dimensions", "resolution"):
            if match := _SIZES.search(str(inputs.get(name, ""))[:100]):
                return f"{match[1]}x{match[2]}"
        if "encode" in start.kind.lower() or "image" in inputs:
            raise Untraceable(start.origin)
    raise Untraceable("is in no node before the sampler")


def _model(graph: Graph, node: Node) -> tuple[str, list[str]]:
    """The name of the model that a sampler uses, and of the LoRAs between them. "" if it is not found."""
    loras: list[str] = []
    known = {node.id}
    while True:
        name = next((v for key in _MODELS if isinstance(v := node.inputs.get(key), str)), "")
        if isinstance(lora := node.inputs.get("lora_name"), str) and lora.lower() != "none":
            loras.append(lora)
        link = next((node.links[key] for key in ("model", "guider", *_PIPES) if key in node.links), None)
        if name or link is None or link[0] in known or link[0] not in graph.nodes:
            return name, loras
        known.add(link[0])
        node = graph.nodes[link[0]]
