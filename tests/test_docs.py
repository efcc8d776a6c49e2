"""What README and docs say can be typed, clicked and run.

Every code block names its language. A `python` block is executed; an `sh` block is parsed, and its
`vatt` lines are run on tiny data; the rest is read by what reads such files. A block that cannot be
run here has the reason in a comment above it: `<!-- not run: it trains for hours -->`. A `text`
block is a picture or an output.
"""

import ast
import json
import re
import shlex
import shutil
import tarfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from vatt import presets
from vatt.cli import main as cli
from vatt.cli import resolve as settings
from vatt.costs.paper_tables import paper_rows
from vatt.errors import MissingExtraError
from vatt.evaluation.protocols.zero_shot_pool import read_prompts
from vatt.ingest.manifest import read_label_table, read_manifest
from vatt.tasks.finetune import FinetuneConfig
from vatt.tasks.pretrain import PretrainConfig

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}
TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<why>.*) -->\n)?```(?P<language>.*)\n(?P<body>(?s:.*?))^```", flags=re.M
)


@dataclass(frozen=True)
class Block:
    page: Path
    language: str
    body: str
    not_run: str | None

    def lines(self) -> list[list[str]]:
        """The words of each command of a shell block, continued lines joined, without comments."""
        lines = self.body.replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


BLOCKS = [
    Block(page, found["language"], found["body"], found["why"])
    for page, text in TEXTS.items()
    for found in BLOCK.finditer(text)
]


def of(language: str, *, run: bool = False) -> list[Any]:
    """Test parameters: the blocks of a language; `run`: only those that can be run here."""
    return [
        pytest.param(block, id=f"{block.page.stem}-{number}")
        for number, block in enumerate(BLOCKS)
        if block.language == language and not (run and block.not_run)
    ]


def prose(page: Path) -> str:
    return BLOCK.sub("", TEXTS[page])


# --- links, names, numbers


def test_links_within_the_project_lead_somewhere():
    broken = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[page]):
            path, _, anchor = target.partition("#")
            file = page.parent / path if path else page
            if "://" in target:
                continue
            if not file.exists() or (anchor and anchor not in anchors(file)):
                broken.append(f"{page.name}: {target}")
    assert not broken


def anchors(page: Path) -> set[str]:
    """The names that headings can be linked by."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in headings}


def test_every_page_is_linked_from_the_readme():
    linked = set(re.findall(r"\]\(docs/([\w-]+\.md)\)", TEXTS[ROOT / "README.md"]))
    assert linked == {page.name for page in PAGES if page.parent.name == "docs"}


def test_no_page_is_left_unfinished():
    unfinished = r"TO FILL|TODO|TBD|FIXME"
    assert not [page.name for page, text in TEXTS.items() if re.search(unfinished, text)]


def test_every_command_has_its_page():
    for name in cli.COMMANDS:
        if name != "demo record":  # on the page of the demo
            page = TEXTS[ROOT / "docs" / f"{name.replace(' ', '-')}.md"]
            assert page.startswith(f"# `vatt {name}`: ")
            assert re.search(rf"^vatt {name}\b", page, flags=re.M), name


def test_commands_and_targets_named_in_the_text_exist():
    commands = {name.split()[0] for name in cli.COMMANDS}
    for page in PAGES:
        assert set(re.findall(r"`vatt ([a-z][a-z-]*)", prose(page))) <= commands, page
        assert set(re.findall(r"`make ([a-z-]+)", prose(page))) <= set(TARGETS), page


def test_files_and_modules_named_in_the_text_exist():
    missing = []
    for page in PAGES:
        for span in re.findall(r"`([^`]+)`", prose(page).replace("\n", " ")):
            for path in re.findall(r"[\w./-]+\.py\b|\b(?:tests|benchmarks|docs)/[\w./-]+", span):
                homes = (ROOT, ROOT / "src" / "vatt", ROOT / "src", page.parent)
                if not any((home / path).exists() for home in homes):
                    missing.append(f"{page.name}: {path}")
            found = re.match(r"(vatt(?:\.[a-z_]+)*?)\.([A-Za-z_]+)\b(?!\.)", span)
            if found and not can_import(*found.groups()):
                missing.append(f"{page.name}: {span}")
    assert set(missing) == {
        "architecture.md: tasks/NAME.py",  # NAME is the reader's
        "architecture.md: docs/NAME.md",
        "evaluation.md: colours.py",  # the reader's: the block below it
        "CONTRIBUTING.md: utils.py",  # "there is no"
    }


def test_pages_named_in_the_source_exist():
    for file in (ROOT / "src").rglob("*.py"):
        for page in re.findall(r"docs/[\w-]+\.md", file.read_text(encoding="utf-8")):
            assert (ROOT / page).exists(), file


def can_import(module: str, name: str) -> bool:
    try:
        return hasattr(import_module(module), name) or bool(import_module(f"{module}.{name}"))
    except MissingExtraError:
        return True  # it is there, but what it stands on is not installed
    except ImportError:
        return False


@pytest.mark.parametrize(
    "path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda one: one.stem
)
def test_what_a_benchmark_imports_of_ours_is_there(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or node.module is None:
            continue
        beside = path.with_name(f"{node.module}.py")
        found = names_in(beside) if beside.is_file() else None
        for one in node.names if found is not None or node.module.startswith("vatt") else ():
            there = can_import(node.module, one.name) if found is None else one.name in found
            assert there, f"{node.module} has no {one.name}"


def names_in(path: Path) -> set[str]:
    """What a module defines or imports at its top."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            found |= {one.asname or one.name for one in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            found |= {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
    return found


def dotted(cls: Any, before: str = "") -> Iterator[str]:
    """Every setting of a config: `data.batch_size` …, and the groups."""
    kinds = get_type_hints(cls)
    for field in fields(cls):
        yield before + field.name
        if is_dataclass(kinds[field.name]):
            yield from dotted(kinds[field.name], f"{before}{field.name}.")


def test_settings_named_in_the_text_exist():
    known = {
        *dotted(PretrainConfig),
        *dotted(FinetuneConfig),
        "model.module",
        "model.classify",
    }  # an attribute of `model = vatt.load(…)`
    groups = "|".join(sorted({name.split(".")[0] for name in known if "." in name}))
    for page in PAGES:
        named = re.findall(rf"`(?:--)?((?:{groups})\.[a-z_.]+)\b(?!\.)", prose(page))
        named = [
            name for name in named if not name.endswith((".py", ".json", ".csv", ".safetensors"))
        ]
        assert set(named) <= known, page


def default_shown(value: object) -> str | None:
    """A number or switch as the pages write it; None for defaults that they write in words."""
    match value:
        case bool():
            return "on" if value else "off"
        case int() | float():
            return f"{value:g}"
    return None


def test_tables_of_settings_have_the_names_and_defaults_of_the_command():
    for name, command in cli.COMMANDS.items():
        page = ROOT / "docs" / f"{name.replace(' ', '-')}.md"
        tables = re.findall(r"^\| setting \|.*\n\|[-|]+\n((?:\|.*\n)+)", TEXTS.get(page, ""), re.M)
        config = getattr(import_module(command.module), command.config)
        known = {field.name: field.default for field in fields(config)}
        for row in "".join(tables).splitlines():
            _, names, shown, *_ = row.split("|")
            for setting, text in zip(names.split(","), shown.split(","), strict=False):
                expected = default_shown(known[setting.strip(" `")])
                assert expected in (None, text.strip()), (page.name, row)


@pytest.mark.slow  # it counts the paper's models
def test_the_tables_of_the_paper_are_those_that_the_command_prints():
    numbers = re.findall(r"[+-]?\d+\.\d+%?", next(b.body for b in BLOCKS if b.page.stem == "info"
                                                  and b.language == "text"))  # fmt: skip
    printed = []
    for row in paper_rows():
        digits = 2 if row.column == "TFLOPs" else 1
        printed += [f"{value:.{digits}f}" for value in (row.paper, row.ours, row.ours_full)]
        printed.append(f"{row.ours / row.paper - 1:+.2%}")
    assert numbers == printed


# --- code blocks


def test_every_block_names_its_language_and_says_why_it_is_not_run():
    for block in BLOCKS:
        generated = block.page.stem == "architecture" and block.language == ""
        assert block.language in ("python", "sh", "csv", "json", "text") or generated, block
        assert not (block.not_run and block.language not in ("python", "sh")), block
    for page in PAGES:
        assert not re.search(r"^    (vatt|import|torchrun) ", prose(page), flags=re.M), page


def parsed(words: list[str]) -> None:
    """Check a `vatt …` line as the command would, up to running it."""
    name, args = cli.find_command(words)
    command = cli.COMMANDS[name]
    options, rest = cli.split_options(args, presets=command.presets)
    table = getattr(presets, command.presets or "PRESETS")
    if options.preset not in table:  # a folder that the reader has
        options = replace(options, preset=None)
    config = getattr(import_module(command.module), command.config)
    start = presets.starting_values(options.preset, options.bundle, table)
    settings.resolve(config, rest, prog=f"vatt {name}", presets=start)


@pytest.mark.parametrize("block", of("sh"))
def test_shell_lines_can_be_typed(block):
    for words in block.lines():
        match words:
            case ["vatt", *args]:
                parsed(args)
            case ["torchrun", *_]:
                parsed(words[words.index("vatt") + 1 :])
            case ["make", target]:
                assert target in TARGETS
            case ["pip", "install", *what]:
                extras = re.findall(r"\[(.*)\]", " ".join(what))
                assert set(extras) <= set(PROJECT["optional-dependencies"])
            case _:
                raise AssertionError(f"nothing checks {shlex.join(words)}")


@pytest.fixture
def sandbox(tiny, tmp_path, monkeypatch) -> Path:
    """A folder with what the pages take for granted: videos, shards, a run, tars of others."""
    for name in ("videos", "recordings"):
        shutil.copytree(tiny.clips, tmp_path / name)
    for name, video in zip(("a.mp4", "b.mp4"), sorted(tiny.clips.glob("test/*.mp4")), strict=False):
        shutil.copy(video, tmp_path / name)
        (tmp_path / "lectures").mkdir(exist_ok=True)
        shutil.copy(video, tmp_path / "lectures" / name)
    (tmp_path / "talks.csv").write_text("file\na.mp4\n")
    shutil.copytree(tiny.shards, tmp_path / "shards")
    shutil.copytree(tiny.shards, tmp_path / "other")
    for name in ("demo", "mine"):
        shutil.copytree(tiny.run, tmp_path / "runs" / name)
    (tmp_path / "clips").mkdir()
    shutil.copy(tiny.clips / "prompts.json", tmp_path / "clips")
    (tmp_path / "downloads").mkdir()
    (encoder,) = (b for b in BLOCKS if b.page.stem == "evaluation" and b.language == "python")
    (tmp_path / "colours.py").write_text(encoder.body)
    with tarfile.open(tmp_path / "downloads" / "00000.tar", "w") as tar:
        tar.add(tmp_path / "a.mp4", "000.mp4")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow  # the default suite runs each command already, in tests/e2e and tests/tasks
@pytest.mark.parametrize("block", of("sh", run=True))
def test_shell_lines_run(block, sandbox, capsys):
    if block.page.stem == "prepare":
        shutil.rmtree("shards")  # which this page makes
    for words in block.lines():
        if words[0] == "vatt":
            assert cli.main(words[1:]) == 0, (shlex.join(words), capsys.readouterr())


@pytest.mark.parametrize("block", of("python", run=True))
def test_python_examples_run(block, sandbox, capsys):
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(block.body, block.page.name, "exec"), names)
    made = set(re.findall(r"^(\w+) = ", block.body, flags=re.M))
    assert made
    assert made <= names.keys()
    assert bool(capsys.readouterr().out) == ("print(" in block.body)


@pytest.mark.parametrize("block", of("csv"))
def test_tables_are_manifests(block, tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text(block.body)
    of_finetune = block.page.stem == "finetune"
    assert read_label_table(path, "label", None) if of_finetune else read_manifest(path)


@pytest.mark.parametrize("block", of("json"))
def test_json_files_are_prompts(block, tmp_path):
    (tmp_path / "prompts.json").write_text(block.body)
    assert read_prompts(tmp_path / "prompts.json") == json.loads(block.body)
