"""Layers, import cycles, names and sizes: what docs/decisions.md and DESIGN rules promise about the sources."""

import ast
import re
import tomllib
from collections import Counter

import pytest

from tests.helpers import ROOT
from tests.helpers.imports import cycles, graph, grouped, sources

CODE = ("diffusekit", "training")
# A module imports only from lower rows of its package, never from its own row.
LAYERS: dict[str, list[set[str]]] = {
    "diffusekit": [
        {"errors", "display", "version", "exact_schedulers", "hub_aliases"},
        {"schedule", "setting_fields", "lora_request"},
        {"images", "atomic", "charts", "settings", "options", "prompt", "foreign_syntax", "workspace", "model_files"}
        | {"text_files"},
        {"config", "file_hashes", "large_files", "prompt_list", "sandbox"},
        {"hub_cache"},
        {"places"},
        {"model_names"},
        {"device", "hub", "conditioning"},
        {"metadata", "model_catalog"},
        {"models"},
        {"latents", "attention", "embeddings", "mask"},
        {"text", "start_image", "batch_size", "lora"},
        {"prompt_check", "prompt_encoder", "sampling", "canvas", "generated_image"},
        {"defaults", "start_latents"},
        {"generation", "clip_score"},
        {"pipeline"},
        {"inversion", "visualise"},
        {"batch", "bench"},
        {"server"},
        {"cli"},
        {"__main__"},
    ],
    "diffusekit.model_files": [
        {"distillation", "families", "headers"},
        {"description", "links", "original_layout", "prediction", "remote_code", "weights"},
        {"checks", "kinds", "safety_files"},
        {"folder"},
        {"folder_description", "one_file"},
        {"file_description", "vae_files"},
    ],
    "diffusekit.embeddings": [
        {"names", "vocabulary"},
        {"token"},
        {"formats"},
        {"files"},
        {"lookup"},
        {"arithmetic", "omissions"},
    ],
    "diffusekit.lora": [
        {"hashes", "layouts"},
        {"weights"},
        {"files", "adapter"},
        {"selection"},
    ],
    "diffusekit.inversion": [
        {
            "base_model",
            "dataset",
            "determinism",
            "placeholder",
            "rng",
            "run_folder",
            "selection",
            "validation_plan",
        },
        {"captions", "checkpoint", "encoded_dataset", "evaluation", "report", "token_metadata"},
        {"batches", "progress"},
        {"loss"},
        {"optimizer"},
        {"trainer"},
    ],
    "diffusekit.visualise": [
        {"contact_sheet", "figure", "trace"},
        {"attention_maps", "forward", "plots", "reverse", "xyz_grid"},
        {"compare", "lesson", "samplers", "tokens"},
    ],
    "diffusekit.server": [
        {"errors"},
        {"models", "proxy"},
        {"security", "storage"},
        {"jobs"},
        {"routes"},
        {"ui", "app"},
        {"serve"},
    ],
    "diffusekit.server.jobs": [
        {"job"},
        {"events", "statistics", "store"},
        {"context"},
        {"generate", "invert"},
        {"visualise"},
        {"kinds"},
        {"worker"},
        {"queue"},
    ],
    "diffusekit.server.ui": [
        {"hardening", "html", "prefix", "prompt_info", "theme"},
        {"context", "progress"},
        {"trash_button"},
        {"tabs"},
    ],
    "training.mini": [
        {"optimizers", "runtime", "widen", "world", "model_card"},
        {"config", "photos", "tokenizer"},
        {"dataset"},
        {"evaluate", "image_encoder", "text_encoder", "unet", "vae"},
        {"distill", "export", "loss_curves"},
        {"finetune"},
        {"__main__"},
    ],
}
FORBIDDEN = {"utils", "util", "helpers", "common", "base", "manager", "misc"}
NOUNS = {"sampling", "hardening", "conditioning"}  # nouns of the field that end like a gerund
LONGEST_MODULE, LONGEST_FUNCTION = 400, 40


@pytest.mark.parametrize("package", LAYERS)
def test_modules_import_only_from_lower_layers(package):
    rows = {name: i for i, row in enumerate(LAYERS[package]) for name in row}
    edges = grouped(graph(package.split(".")[0]), package)
    assert set(edges) == set(rows), "the table names every module of the package"
    upward = {f"{a} imports {b}" for a, targets in edges.items() for b in targets if rows[b] >= rows[a]}
    assert not upward


def test_no_module_imports_its_package_from_below():
    """`from ... import __version__` inside a package would make it depend on what it is part of."""
    edges = graph("diffusekit")
    assert not [name for name, targets in edges.items() if name != "diffusekit.__main__" and "diffusekit" in targets]


@pytest.mark.parametrize("folder", CODE)
def test_no_import_cycles_between_files(folder):
    """Imports inside functions and for type checking count too."""
    assert not cycles(graph(folder))


def test_imports_inside_the_package_are_relative():
    for path in sources("diffusekit").values():
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            assert not any(name.split(".")[0] == "diffusekit" for name in names), path


def test_public_classes_have_unique_names():
    names = Counter(
        node.name
        for path in sources(*CODE).values()
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert not {name for name, count in names.items() if count > 1}


def test_module_names_are_nouns_that_say_something():
    for name in sources(*CODE):
        last = name.rpartition(".")[2]
        assert last not in FORBIDDEN, name
        assert not last.endswith("ing") or last in NOUNS, f"{name}: a gerund"


def test_modules_are_small_and_say_what_they_are_for():
    for path in sources(*CODE).values():
        text = path.read_text()
        assert not text or ast.get_docstring(ast.parse(text)), f"{path} does not say what it is for"
        assert text.count("\n") <= LONGEST_MODULE, path


def test_functions_and_coroutines_are_short():
    long = [
        f"{path.relative_to(ROOT)}: {node.name} {(node.end_lineno or 0) - node.lineno}"
        for path in sources(*CODE).values()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno > LONGEST_FUNCTION
    ]
    assert not long


def test_the_formatter_is_never_skipped():
    ruff = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]
    assert ruff["line-length"] == 120 and "pycodestyle" not in ruff["lint"]
    for path in sources("diffusekit", "training", "tests", "benchmarks").values():
        assert not re.search(r"#\s*fmt:\s*(skip|off)", path.read_text()), path


def test_nothing_below_the_command_line_prints():
    for name, path in sources("diffusekit").items():
        if not name.startswith("diffusekit.cli"):
            calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
            assert not any(isinstance(c.func, ast.Name) and c.func.id == "print" for c in calls), path


def test_tests_use_the_public_interface():
    """No private attribute of an object and no private module name, and no change of the import path."""
    private = re.compile(r"(?<!\bself)(?<!\bcls)\.(_[a-z]\w*)")
    allowed = {"_repr_png_", "_exit"}  # IPython's protocol, and the way out of a forked process
    allowed |= {"_id", "_stylesheets", "_get_theme_css"}  # Gradio's components and themes show these in no other way
    reads = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.attr}"
        for path in sources("tests").values()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and private.fullmatch(f".{node.attr}")
        and node.attr not in allowed
        and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
    ]
    assert not reads
    assert not [p for p in sources("tests").values() if "sys.path" + ".insert" in p.read_text()]
