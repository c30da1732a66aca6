"""The import graph of the sources, file by file, read with `ast`: nothing is imported."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.helpers import ROOT


def module_name(path: Path) -> str:
    """`diffusekit/models/lora.py` → `diffusekit.models.lora`; a package is its `__init__.py`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources(*folders: str) -> dict[str, Path]:
    """All Python files below `folders`, by module name."""
    return {module_name(p): p for folder in folders for p in sorted((ROOT / folder).rglob("*.py"))}


def imports(name: str, path: Path, modules: dict[str, Path]) -> Iterator[str]:
    """The modules among `modules` that a file imports, inside functions and for type checking too."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *(node.module or "").split(".")]).strip(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                if inner in modules or base in modules:
                    yield inner if inner in modules else base


def graph(*folders: str) -> dict[str, set[str]]:
    """Module → the modules it imports."""
    modules = sources(*folders)
    return {name: set(imports(name, path, modules)) - {name} for name, path in modules.items()}


def cycles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Every chain of imports that leads back to its start (one for each back edge of a depth-first search)."""
    found: list[list[str]] = []
    finished: set[str] = set()

    def visit(name: str, path: list[str]) -> None:
        if name in path:
            found.append([*path[path.index(name) :], name])
        elif name not in finished:
            for after in sorted(edges[name]):
                visit(after, [*path, name])
            finished.add(name)

    for name in sorted(edges):
        visit(name, [])
    return found
