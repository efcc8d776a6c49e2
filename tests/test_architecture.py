"""docs/architecture.md holds: arrows never turn back, each kind of thing has its home."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "vatt"
FILES = sorted(SOURCE.rglob("*.py"))

COMMON = {"contracts", "config", "errors", "distributed"}
ARROWS = {
    "__init__": {"encoder"},  # vatt.load, imported when first used
    "__main__": {"cli"},
    "cli": {"presets", "tasks", "tasks.demo"},
    "tasks.demo": {"presets", "tasks", "evaluation"},  # the whole line: it calls the other tasks
    "presets": {"training", "data", "models", "losses"},
    "tasks": {
        "training",
        "training.precision",
        "evaluation",
        "encoder",
        "convert",
        "data",
        "media",
        "models",
        "losses",
        "class_losses",
        "demo",
    },
    "evaluation": {"encoder", "data", "models", "training.precision"},
    "encoder": {"data", "media", "models"},
    "convert": {"models"},
    "training": {"training.precision"},
    "training.precision": set(),  # which numbers a device multiplies fast: evaluation asks too
    "data": {"media"},
    "demo": {"media"},
    "media": set(),
    "models": set(),
    "losses": set(),
    "class_losses": set(),
    "contracts": set(),
    "config": set(),
    "errors": set(),
    "distributed": set(),
}
KNOW_NO_RANKS = {"media", "models", "losses", "class_losses", "contracts", "config", "errors"}


def part(module: str) -> str:
    """The part a module belongs to: `tasks.pretrain` → `tasks`."""
    return module if module in ARROWS else module.split(".")[0]


def name_of(file: Path) -> str:
    return ".".join(file.relative_to(SOURCE).with_suffix("").parts)


def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def imported(file: Path) -> Iterator[str]:
    """Names below `vatt` that a file imports, also inside functions."""
    modules: list[str] = []
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            modules += [f"{node.module}.{alias.name}" for alias in node.names]
    for module in modules:
        top, _, rest = module.partition(".")
        if top == "vatt" and rest not in ("", "__version__"):
            yield ".".join(rest.split(".")[:2])


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_imports_follow_the_arrows(file):
    mine = part(name_of(file))
    common = COMMON - {"distributed"} if mine in KNOW_NO_RANKS else COMMON
    allowed = ARROWS[mine] | common | {mine}
    turned_back = {module for module in imported(file) if part(module) not in allowed}
    assert not turned_back


def test_tasks_do_not_know_each_other():
    for file in (SOURCE / "tasks").glob("*.py"):
        if file.stem != "demo":
            assert not {name for name in imported(file) if part(name) == "tasks"}, file


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_only_the_command_line_prints_and_nothing_pickles(file):
    calls = {node.func.id for node in ast.walk(tree(file))
             if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}  # fmt: skip
    assert "print" not in calls or part(name_of(file)) == "cli"
    text = file.read_text(encoding="utf-8")
    assert "import pickle" not in text
    assert text.count("torch.load(") == text.count("weights_only=True")


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_a_file_holds_one_idea_and_a_function_does_one_thing(file):
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 400
    functions = [node for node in ast.walk(tree(file)) if isinstance(node, ast.FunctionDef)]
    too_long = {
        function.name: function.end_lineno - function.lineno + 1
        for function in functions
        if function.end_lineno and function.end_lineno - function.lineno >= 60
    }
    assert not too_long
