"""The rules that keep the library easy to change: who imports whom, what an import loads, how long a file gets."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from inspect import ismodule
from pathlib import Path

import pytest

import rfdetr

PACKAGE = Path(rfdetr.__file__).parent
MODULES = {
    ".".join(("rfdetr", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
# A module imports from its own layer or lower ones.
LAYERS = {
    **dict.fromkeys(
        ("errors", "types", "boxes", "masks", "classes", "coco_names", "files", "console", "version", "host_memory"), 0
    ),
    **dict.fromkeys(("config", "devices", "distributed", "launch"), 1),
    **dict.fromkeys(("models", "data"), 2),
    **dict.fromkeys(("weights", "inference"), 3),
    "evaluation": 4,
    "report": 5,
    "training": 6,
    **dict.fromkeys(("lifecycle", "api"), 7),
    **dict.fromkeys(("cli", "__main__"), 8),
}
APART = {("models", "data"), ("data", "models"), ("weights", "inference")}
ENTRANCE = {"api", "config", "errors", "version"}
"""What the package itself imports."""
HEAVY = {"torch", "torchvision", "supervision", "matplotlib"}
# What only some verbs need, by the module that imports it in the function that does.
LATE = {
    "rfdetr.models.matcher": "scipy.optimize",
    "rfdetr.inference.detections": "supervision",
    "rfdetr.data.colour": "scipy.ndimage",
    "rfdetr.training.display": "rich",
}


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def imports(root: ast.AST) -> Iterator[str]:
    """The modules of ours that a piece of code imports, relative imports aside."""
    for node in ast.walk(root):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "rfdetr")
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "rfdetr":
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in MODULES else node.module


def part_of(module: str) -> str:
    """`rfdetr.models.detector` -> `models`; the package itself has no part."""
    return module.split(".")[1] if "." in module else ""


def functions(module: str) -> Iterator[ast.AST]:
    return (node for node in ast.walk(tree(module)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def loaded_at_once(module: str) -> set[str]:
    """Imports outside of functions and of `if TYPE_CHECKING`."""
    late = [
        node for node in ast.walk(tree(module)) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
    ]
    skipped = {inner for node in (*late, *functions(module)) for inner in ast.walk(node)}
    return {
        name
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Import | ast.ImportFrom) and node not in skipped
        for name in imports(node)
    }


def test_every_module_has_a_layer() -> None:
    assert {part_of(module) for module in MODULES} - {""} == set(LAYERS)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    part = part_of(module)
    used = {part_of(name) for name in imports(tree(module))} - {part}
    if part == "":
        assert used <= ENTRANCE
    else:
        assert "" not in used
        assert [other for other in used if LAYERS[other] > LAYERS[part] or (part, other) in APART] == []


def test_no_import_circle() -> None:
    TopologicalSorter({module: loaded_at_once(module) - {module} for module in MODULES}).prepare()


@pytest.mark.parametrize("module", MODULES)
def test_imports_inside_functions_only_where_they_keep_the_start_light(module: str) -> None:
    if module != "rfdetr.api" and part_of(module) != "cli":
        inner = [node for function in functions(module) for node in ast.walk(function)]
        late = [ast.unparse(node) for node in inner if isinstance(node, ast.Import | ast.ImportFrom)]
        assert [line for line in late if not line.startswith(f"from {LATE.get(module)} import ")] == []


def test_no_file_is_longer_than_400_lines() -> None:
    files = [*PACKAGE.rglob("*.py"), *Path(__file__).parent.rglob("*.py")]
    assert [file for file in files if len(file.read_text(encoding="utf-8").splitlines()) > 400] == []


@pytest.mark.parametrize("start", [["-c", "import rfdetr"], ["-m", "rfdetr", "--help"]], ids=["import", "help"])
def test_the_start_loads_nothing_heavy(start: list[str]) -> None:
    command = [sys.executable, "-X", "importtime", *start]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    loaded = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert "rfdetr.api" in loaded
    assert loaded & HEAVY == set()


def test_opening_a_model_loads_nothing_that_only_some_verbs_need() -> None:
    command = [sys.executable, "-X", "importtime", "-c", "import rfdetr.lifecycle"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    loaded = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert "rfdetr.training.run" in loaded
    assert loaded & set(LATE.values()) == set()


def test_what_the_package_shows_is_what_it_lists() -> None:
    shown = {name for name, value in vars(rfdetr).items() if not name.startswith("_") and not ismodule(value)}
    assert shown | {"__version__"} == set(rfdetr.__all__)
    assert len(rfdetr.__all__) == len(set(rfdetr.__all__))
