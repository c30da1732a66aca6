"""ComfyUI's `workflow`, which the editor saves, as the graph that it stands for. Some files have nothing else.

The editor lists the values of a node without their names, so the order of the common nodes' values is known here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .comfyui_graph import Graph, Node
from .json_text import parse_object

_KSAMPLER = ("seed", "steps", "cfg", "sampler_name", "scheduler", "denoise")
_SIZE = ("width", "height", "batch_size")
_ORDERS: dict[str, tuple[str, ...]] = {
    "KSampler": _KSAMPLER,
    "KSamplerAdvanced": ("add_noise", "noise_seed", *_KSAMPLER[1:5], "start_at_step", "end_at_step"),
    "SamplerCustom": ("add_noise", "noise_seed", "cfg"),
    "RandomNoise": ("noise_seed",),
    "KSamplerSelect": ("sampler_name",),
    "BasicScheduler": ("scheduler", "steps", "denoise"),
    "CFGGuider": ("cfg",),
    "CLIPTextEncode": ("text",),
    "EmptyLatentImage": _SIZE,
    "EmptySD3LatentImage": _SIZE,
    "CheckpointLoaderSimple": ("ckpt_name",),
    "UNETLoader": ("unet_name",),
    "LoraLoader": ("lora_name",),
    "PrimitiveNode": ("value",),
}
_SEED_CONTROLS = ("fixed", "increment", "decrement", "randomize")  # follow a seed in the list of values
_MUTED, _BYPASSED = 2, 4


def parse_workflow(text: str) -> Graph | None:
    """Read the JSON of a workflow; None if it is something else. Muted nodes are left out."""
    found = parse_object(text)
    nodes, links = found.get("nodes"), found.get("links")
    if not isinstance(nodes, list) or not isinstance(links, list):
        return None
    sources = {link[0]: [str(link[1]), link[2]] for link in links if _is_link(link)}
    made = [_make_node(node, sources) for node in nodes if isinstance(node, dict) and node.get("mode") != _MUTED]
    graph = {node.id: node for node in made if node.kind}
    return Graph(graph) if graph else None


def _is_link(link: Any) -> bool:
    """Whether this is [id, from, slot, to, slot, type]."""
    if not isinstance(link, list) or len(link) < 5:
        return False
    return all(isinstance(part, int | str) for part in link[:2]) and isinstance(link[2], int)


def _make_node(node: Mapping[str, Any], sources: Mapping[Any, list[Any]]) -> Node:
    inputs = node.get("inputs")
    rows = [row for row in inputs if isinstance(row, dict)] if isinstance(inputs, list) else []
    links: dict[str, Any] = {
        str(row.get("name", "")): sources[row["link"]] for row in rows if _key(row.get("link")) in sources
    }
    number, kind = str(node.get("id")), str(node.get("type", ""))
    if node.get("mode") == _BYPASSED:
        return Node(number, "Reroute", dict(list(links.items())[:1]))
    return Node(number, kind, _name_values(kind, node.get("widgets_values"), rows) | links)


def _name_values(kind: str, values: Any, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Give the values of a node their names: from the table, or from the inputs that newer editors list."""
    if isinstance(values, dict):
        return {str(name): value for name, value in values.items()}
    if not isinstance(values, list):
        return {}
    plain = [v for i, v in enumerate(values) if not (i and isinstance(v, str) and v in _SEED_CONTROLS)]
    widgets = [str(row["widget"].get("name")) for row in rows if isinstance(row.get("widget"), dict)]
    names = _ORDERS.get(kind) or (widgets if len(widgets) == len(plain) else ())
    if not names and len(plain) == 1 and isinstance(plain[0], str | int | float):
        names = ("value",)
    return dict(zip(names, plain, strict=False))


def _key(value: Any) -> Any:
    return value if isinstance(value, int | str) else None
