"""What README and docs say can be typed, clicked and run."""

import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from vatt.cli import main as cli
from vatt.cli import resolve as settings
from vatt.presets import PRESETS, starting_values

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = {name.split()[0] for name in cli.COMMANDS}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.M | re.S)


def shell_lines() -> list[str]:
    """Commands in shell blocks, continued lines joined, comments and prompts removed."""
    lines = []
    for page in PAGES:
        for block in blocks(page, "(?:sh|bash|console)"):
            lines += block.replace("\\\n", " ").splitlines()
        lines += re.findall(r"^    (vatt .*)$", page.read_text(), flags=re.M)
    words = [shlex.split(line.removeprefix("$ "), comments=True) for line in lines]
    return [shlex.join(line) for line in words if line]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_project_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    broken = []
    for target in targets:
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        file = page.parent / path if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_is_left_unfinished(page):
    assert not re.findall(r"TO FILL|TODO|TBD|FIXME", page.read_text())


def anchors(page: Path) -> set[str]:
    """The names that headings can be linked by."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in headings}


def test_every_documented_command_line_parses():
    lines = [line for line in shell_lines() if line.startswith("vatt ")]
    assert lines
    for line in lines:
        name, args = cli.find_command(shlex.split(line)[1:])
        command = cli.COMMANDS[name]
        module = __import__(command.module, fromlist=["run"])
        options, rest = cli.split_options(args, presets=command.presets)
        if options.preset not in PRESETS:  # a folder that the reader has
            options = replace(options, preset=None)
        config = getattr(module, command.config)
        settings.resolve(
            config, rest, prog=line, presets=starting_values(options.preset, options.bundle)
        )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_named_in_the_text_exist(page):
    named = set(re.findall(r"`vatt ([a-z][a-z-]*)", page.read_text()))
    assert named <= COMMANDS
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M)
    assert set(re.findall(r"`make ([a-z-]+)", page.read_text())) <= set(targets)


def test_documented_make_targets_exist():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M)
    asked = [shlex.split(line)[1] for line in shell_lines() if line.startswith("make ")]
    assert {"demo", "test"} <= set(asked) <= set(targets)


PYTHON = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in PAGES
    for number, block in enumerate(blocks(page, "python"))
]


@pytest.mark.parametrize("block", PYTHON)
def test_python_examples_run(block, tiny, tmp_path, monkeypatch):
    videos = sorted((tiny.clips / "test").glob("*.mp4"))
    for name, video in zip(("a.mp4", "b.mp4"), videos, strict=False):
        shutil.copy(video, tmp_path / name)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "demo").symlink_to(tiny.run)
    (tmp_path / "shards").symlink_to(tiny.shards)
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README", "exec"), {"__name__": "example"})
