"""docs/architecture.md tells the truth: its tree is the disk, its arrows are the imports.

`python tests/test_architecture.py` writes the tree in the page anew, from the disk.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
PAGE = ROOT / "docs" / "architecture.md"
FILES = {path.relative_to(SOURCE).as_posix(): path for path in sorted(SOURCE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}
PACKAGES = {name: Path(name).parent.as_posix() for name in FILES if name.endswith("__init__.py")}


# --- what the source says


def module_of(file: str) -> str:
    """vatt/media/audio.py → vatt.media.audio; a package is its `__init__.py`."""
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


FILE_OF = {module_of(file): file for file in FILES}


def imported(file: str) -> Iterator[str]:
    """Names of the modules that a file imports, ours and others, also inside functions."""
    for node in ast.walk(TREES[file]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, f"{file}: relative import"  # noqa: PT018
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in FILE_OF else node.module


OURS = {file: {FILE_OF[name] for name in imported(file) if name in FILE_OF} for file in FILES}


def part(file: str) -> str:
    """The package or module below `vatt` that a file belongs to: `media`, `losses`."""
    package, _, rest = module_of(file).partition(".")
    return rest.split(".")[0] or package if package == "vatt" else package


def first_line(file: str) -> str:
    return (ast.get_docstring(TREES[file]) or "").split("\n")[0]


def strings(file: str) -> Iterator[str]:
    """The strings of a file, without its docstrings."""
    docstrings = {node.value for node in ast.walk(TREES[file]) if isinstance(node, ast.Expr)}
    for node in ast.walk(TREES[file]):
        text = node.value if isinstance(node, ast.Constant) and node not in docstrings else None
        if isinstance(text, str):
            yield text


# --- what docs/architecture.md says


def block(heading: str) -> str:
    """The first code block below a heading of the page."""
    found = re.search(
        rf"^## {heading}\n.*?^```\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.M | re.S
    )
    assert found, f"{PAGE.name}: no code block below '## {heading}'"
    return found[1]


def documented_tree() -> dict[str, str]:
    """File or folder, from `src` on → the line beside it, in the order of the page."""
    tree: dict[str, str] = {}
    folders: list[str] = []
    for line in block("The tree").splitlines():
        spaces, name, said = re.fullmatch(r"( *)(\S+) +(.*)", line).groups()  # type: ignore[union-attr]
        folders = [*folders[: len(spaces) // 2], name]
        tree["".join(folders)] = said
    return tree


def documented_arrows() -> dict[str, set[str]]:
    """Part → the parts that it may import."""
    lines = (line.split("→") for line in block("Arrows").splitlines())
    arrows = {left.strip(): set(re.findall(r"\w+", right)) for left, right in lines}
    everyone = arrows.pop("every part")
    return {name: others | everyone for name, others in arrows.items()}


def written_tree() -> str:
    """The tree of the disk; order: what a module imports stands above it, else as on the page."""
    known = list(documented_tree())
    lines: list[str] = []

    def add(folder: str, depth: int) -> None:
        inside = {file for file in FILES if file.startswith(folder)}
        children = {folder + file.removeprefix(folder).split("/")[0] for file in inside}
        children = {child if child in FILES else child + "/" for child in children}
        children.discard(folder + "__init__.py" if depth else "")
        order: TopologicalSorter[str] = TopologicalSorter({child: set() for child in children})
        for child in children:
            for file in (file for file in inside if file.startswith(child)):
                for other in OURS[file] & inside - {folder + "__init__.py"}:
                    above = next(c for c in children if other.startswith(c))
                    if above != child:
                        order.add(child, above)
        order.prepare()
        ready: list[str] = []
        while order.is_active():
            ready += order.get_ready()
            ready.sort(key=lambda c: (known.index(c) if c in known else len(known), c))
            child = ready.pop(0)
            order.done(child)
            name = "  " * depth + child.removeprefix(folder)
            file = child if child in FILES else child + "__init__.py"
            lines.append(f"{name:<24} {first_line(file)}")
            if child.endswith("/"):
                add(child, depth + 1)

    add("", 0)
    return "\n".join(lines) + "\n"


# --- the tree and the arrows


def test_the_tree_on_the_page_is_the_disk():
    on_disk = {
        PACKAGES[file] + "/" if file in PACKAGES else file: first_line(file) for file in FILES
    }
    assert documented_tree() == on_disk, "to write it anew: python tests/test_architecture.py"


def test_a_module_imports_only_what_stands_above_it_in_the_tree():
    place = {name: number for number, name in enumerate(documented_tree())}
    below = {
        file: {other for other in others if other in place and place[other] >= place[file]}
        for file, others in OURS.items()
        if file in place
    }
    assert not {file: others for file, others in below.items() if others}


def test_parts_import_only_along_the_arrows():
    arrows = documented_arrows()
    parts = {part(file) for file in FILES} - {"vatt", "vatt_demo", "__main__"}
    assert set(arrows) == parts
    against = {
        file: wrong
        for file, others in OURS.items()
        if part(file) in parts
        and (wrong := {part(other) for other in others} - arrows[part(file)] - {part(file)})
    }
    assert not against


def test_arrows_of_the_design():
    """What no edit of the page may change."""
    arrows = documented_arrows()
    for knows_no_ranks in ("models", "losses", "media", "shards", "contracts", "config", "errors"):
        assert "distributed" not in arrows[knows_no_ranks]
    assert arrows["losses"] <= {"contracts", "config", "errors"}
    assert "models" not in arrows["data"]
    assert not arrows["models"] & {"data", "media", "shards"}
    assert not arrows["training"] & {"data", "models", "media", "losses"}
    assert not arrows["cli"] - {"config", "contracts", "errors", "presets", "tasks", "vatt"}
    for others in arrows.values():
        assert not others & {"vatt_demo", "cli"}


def circle(imports: Mapping[str, set[str]]) -> list[str]:
    """Modules of which each imports the next, and the last the first; empty without any."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_module_imports_itself_by_way_of_others():
    assert circle(OURS) == []
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})  # such a one is noticed


def test_the_library_never_imports_the_demo_and_tasks_never_each_other():
    for file, others in OURS.items():
        if file.startswith("vatt/"):
            assert not [other for other in others if other.startswith("vatt_demo")], file
        if part(file) == "tasks":
            assert not [other for other in others if part(other) == "tasks"], file


def test_only_distributed_speaks_to_other_ranks():
    speaking = {file for file in FILES if any("torch.distributed" in m for m in imported(file))}
    assert {part(file) for file in speaking} <= {"distributed", "training", "checkpoints"}


# --- one home for each kind of thing

MACHINE = r"\bsched_getaffinity|\bcpu_count\(|cuda\.is_available|is_bf16_supported|/proc/[a-z]"
RENAMES = r"\.f(data)?sync\(|\.rename\(|os\.replace\(|\.replace\([^,()=]+\)"
STARTS = (
    r"^ *(import|from) (subprocess|multiprocessing)\b|ProcessPoolExecutor|os\.(fork|system|exec)"
)


def away_from(home: str, pattern: str) -> set[str]:
    """Files outside of `home` whose text has the pattern."""
    return {
        file
        for file, path in FILES.items()
        if not file.startswith(home)
        and re.search(pattern, path.read_text(encoding="utf-8"), flags=re.M)
    }


def test_only_devices_asks_the_machine():
    assert not away_from("vatt/devices.py", MACHINE)


def test_only_storage_renames_and_flushes():
    assert not away_from("vatt/storage.py", RENAMES)


def test_only_workers_start_processes():
    # The demo's workers end the games that they have started, when they end.
    assert away_from("vatt/workers/", STARTS) == {"vatt_demo/recorder.py"}


def test_html_is_in_templates_only():
    tag = re.compile(r"</[a-z][a-z0-9]*>|<(div|table|p|img|h[1-6]|span|figure|section)[ >]")
    found = {file for file in FILES if any(tag.search(text) for text in strings(file))}
    assert not found
    pages = [path for path in SOURCE.rglob("*") if path.suffix in (".html", ".css", ".j2")]
    homes = ("vatt/report/", "vatt/serve/static/")
    assert all(any(home in path.as_posix() for home in homes) for path in pages)


def calls(file: str) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(TREES[file]):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_only_the_command_line_prints():
    printing = {file for file in FILES for name, _ in calls(file) if name == "print"}
    assert {part(file) for file in printing} == {"cli"}


def test_nothing_pickles():
    """A file of a stranger runs no code: neither pickle nor what hides it."""
    for file in FILES:
        picklers = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
        assert not picklers & {name.split(".")[0] for name in imported(file)}, file
        for name, call in calls(file):
            given = {word.arg: ast.unparse(word.value) for word in call.keywords}
            assert name != "torch.load" or given.get("weights_only") == "True", file
            assert given.get("allow_pickle", "False") == "False", file


# --- names and sizes


def repeated(names: Callable[[str], list[str]], package: str) -> set[str]:
    found = defaultdict(set)
    for file in FILES:
        if file.startswith(package):
            for name in names(file):
                found[name].add(file)
    return {name for name, files in found.items() if len(files) > 1}


def test_no_two_modules_have_one_name():
    """But a module of tasks/, which may be named like the package that does its work."""
    tasks = {module_of(file) for file in FILES if file.startswith("vatt/tasks/")}

    def name(file: str) -> list[str]:
        module = module_of(file)
        return [] if module in (*tasks, "vatt", "vatt_demo") else [module.rsplit(".", 1)[-1]]

    assert not repeated(name, "vatt")


def test_no_two_public_classes_have_one_name():
    def names(file: str) -> list[str]:
        classes = (node.name for node in TREES[file].body if isinstance(node, ast.ClassDef))
        return [name for name in classes if not name.startswith("_")]

    assert not repeated(names, "vatt")


def test_a_package_has_at_most_13_modules():
    inside = defaultdict(set)
    for file in FILES:
        if file not in PACKAGES:
            inside[Path(file).parent.as_posix()].add(file)
    too_many = {name for name, files in inside.items() if len(files) > 13}
    assert not too_many - {"vatt", "vatt/tasks"}  # the stages; the commands


def test_the_first_line_of_a_module_says_what_belongs_there():
    """A sentence, with words that the module's name does not have already."""
    silent = set()
    for file in FILES:
        name = set(re.findall(r"[a-z]+", module_of(file)))
        words = set(re.findall(r"[a-z]+", first_line(file).lower()))
        if not first_line(file).endswith(".") or len(words - name) < 4:
            silent.add(file)
    assert not silent


def test_the_core_can_be_read_in_a_day():
    """README and CONTRIBUTING say so, of these."""
    core = ("vatt/contracts.py", "vatt/losses", "vatt/encoder.py", "vatt/models/", "vatt/training/")
    lines = sum(
        len(path.read_text(encoding="utf-8").splitlines())
        for file, path in FILES.items()
        if file.startswith(core)
    )
    assert lines <= 3800


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(page.replace(block("The tree"), written_tree()), encoding="utf-8")
