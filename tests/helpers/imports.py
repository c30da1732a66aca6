"""The import graph of the sources, file by file, read with `ast`: nothing is imported."""

import ast
import sys
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


def grouped(edges: dict[str, set[str]], package: str) -> dict[str, set[str]]:
    """The graph of a package's direct members: a subpackage counts as one."""

    def member(name: str) -> str | None:
        inside = name.removeprefix(f"{package}.") if name.startswith(f"{package}.") else ""
        return inside.split(".")[0] or None

    found: dict[str, set[str]] = {}
    for name, targets in edges.items():
        if own := member(name):
            found.setdefault(own, set()).update(m for t in targets if (m := member(t)) and m != own)
    return found


def main() -> None:
    """`python -m tests.helpers.imports PACKAGE ...`: members, imports between them, files, imports between files."""
    print("| package | members | imports between members | files | imports between files | cycles |")
    print("|---|--:|--:|--:|--:|--:|")
    for package in sys.argv[1:]:
        edges = graph(package.split(".")[0])
        files = {n: t for n, t in edges.items() if n.startswith(f"{package}.")}
        inner = sum(len(targets & set(files)) for targets in files.values())
        members = grouped(edges, package)
        outer = sum(map(len, members.values()))
        circles = len(cycles({name: targets & set(files) for name, targets in files.items()}))
        print(f"| {package} | {len(members)} | {outer} | {len(files)} | {inner} | {circles} |")


if __name__ == "__main__":
    main()
