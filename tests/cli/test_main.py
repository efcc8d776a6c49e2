"""The command line, run as users run it: in its own process, or through `main`."""

import json
import logging
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field, fields, is_dataclass
from operator import attrgetter
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from vatt.cli import main as cli
from vatt.cli import render
from vatt.cli import resolve as settings
from vatt.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Optim:
    """How weights are changed."""

    steps: int = 10
    warmup_steps: int = 0
    """steps until the learning rate is at its height"""
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        if self.warmup_steps > self.steps:
            raise ConfigError(
                f"optim.warmup_steps: found {self.warmup_steps}, expected <= {self.steps}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A command for tests."""

    out: Path
    names: tuple[str, ...] = ("a",)
    flip: bool = True
    optim: Optim = field(default_factory=Optim)


def resolve(*args: str, **sources):
    return settings.resolve(Config, args, prog="vatt test", **sources)


def test_help_lists_every_command_without_importing_what_takes_long():
    slow = ("torch", "numpy", "tyro", "pydantic", "av", "pyarrow")
    script = (
        "import sys; from vatt.cli.main import main; code = main(['--help']);"
        f"print(code, [name for name in {slow} if name in sys.modules])"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert all(f"  {name} " in done.stdout for name in cli.COMMANDS)
    assert done.stdout.splitlines()[-1] == "0 []"


def test_what_makes_and_checks_shards_starts_without_torch_and_so_do_its_processes():
    names = ("tasks.prepare", "tasks.index_shards", "tasks.audit", "data.cache")
    script = (
        f"import sys, {', '.join(f'vatt.{name}' for name in names)}; print('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_every_command_of_the_table_exists_and_explains_itself():
    for name, command in cli.COMMANDS.items():
        module = __import__(command.module, fromlist=["run"])
        assert callable(module.run)
        with pytest.raises(SystemExit) as stop:
            cli.main([*name.split(), "--help"])
        assert stop.value.code == 0, name


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_setting_that_may_have_none_takes_that_word(name):
    command = cli.COMMANDS[name]
    cls = getattr(__import__(command.module, fromlist=["run"]), command.config)

    def optional(cls: type, prefix: str = "") -> list[str]:
        types, found = get_type_hints(cls), []
        for one in fields(cls):
            kind = types[one.name]
            if isinstance(kind, type) and is_dataclass(kind):
                found += optional(kind, f"{prefix}{one.name}.")
            elif type(None) in get_args(kind):
                found.append(prefix + one.name)
        return found

    names = {
        "out": "x",
        "folder": "x",
        "prefix": "x",
        "run": "x",
        "capture": "x",
        "src": ["x"],
        "folders": ["x"],
        "table": "table8",
        "dataset_dir": "x",
        "index": "x",
        "indexes": ["x"],
        "words": ["x"],
        "checkpoint": "x",
        "library": ["x"],
        "to": "hf://x/y",
    }
    more: dict[str, object] = {"dry_run": True, "scratch": True, "files": ["x"], "action": "list"}
    if name in ("predict", "export", "push", "embed", "reproduce"):  # elsewhere settings of it
        more["model"] = "x"
    presets = [("test", names | more)]
    positional = {"run", "name", "folder"}  # which have no name on the command line
    if name == "reproduce":  # it needs a model or an encoder
        positional |= {"model"}
    keys = sorted(set(optional(cls)) - positional)
    for word in ("none", "None"):
        given = [part for key in keys for part in (f"--{key}", word)]
        found = settings.resolve(cls, given, prog="vatt", presets=presets)
        assert all(attrgetter(key)(found.config) is None for key in keys)
        assert all(found.origins[key] == "command line" for key in keys)


def test_later_sources_win_and_each_value_knows_its_origin(tmp_path):
    file = tmp_path / "lab.toml"
    file.write_text('[optim]\nsteps = 50\nwarmup_steps = 20\nclip_norm = "none"\n')
    preset = ("preset small", {"optim": {"steps": 5, "clip_norm": 1.0}, "names": ["p", "q"]})
    resolved = resolve(
        "--out", "o", "--no_flip", "--optim.warmup-steps=40", presets=[preset], file=str(file)
    )
    optim = Optim(steps=50, warmup_steps=40, clip_norm=None)
    assert resolved.config == Config(out=Path("o"), names=("p", "q"), flip=False, optim=optim)
    assert {key: origin for key, _, origin in resolved.lines()} == {
        "out": "command line",
        "names": "preset small",
        "flip": "command line",
        "optim.steps": str(file),
        "optim.warmup_steps": "command line",
        "optim.clip_norm": str(file),
    }


def test_values_that_depend_on_each_other_are_checked_once_all_are_known(tmp_path):
    file = tmp_path / "lab.toml"
    file.write_text("[optim]\nwarmup_steps = 20\n")
    assert resolve("--out", "o", "--optim.steps", "30", file=str(file)).config.optim.steps == 30
    with pytest.raises(ConfigError, match="found 20, expected <= 10"):
        resolve("--out", "o", file=str(file))


def test_an_unknown_key_is_blamed_on_the_file_it_is_in(tmp_path):
    file = tmp_path / "lab.toml"
    file.write_text("[optim]\nstep = 3\n")
    with pytest.raises(
        ConfigError, match=r"lab\.toml: unknown setting optim\.step; .*optim\.steps"
    ):
        resolve("--out", "o", file=str(file))


def test_a_required_setting_that_no_source_gave_is_wrong_usage(capsys):
    with pytest.raises(SystemExit) as stop:
        resolve("--optim.steps", "3")
    assert stop.value.code == 2
    assert "--out" in capsys.readouterr().err


def test_printed_settings_are_toml_that_gives_the_same_settings_again(tmp_path, capsys):
    first = resolve("--out", "o", "--names", "x", "y", "--optim.steps", "7")
    render.settings(first.lines(), as_json=False)
    file = tmp_path / "again.toml"
    file.write_text(capsys.readouterr().out)
    assert tomllib.loads(file.read_text())["optim"]["steps"] == 7
    assert resolve(file=str(file)).config == first.config


def test_options_of_every_command_are_taken_out_wherever_they_stand():
    args = ["--out", "o", "--json", "--config=a.toml", "--print_config", "--preset", "p", "b"]
    options, rest = cli.split_options(args, presets="PRESETS")
    assert options == cli.Options(preset="p", config="a.toml", print_config=True, json=True)
    assert rest == ["--out", "o", "b"]
    without_presets, rest = cli.split_options(["--preset", "p"], presets="")
    assert (without_presets, rest) == (cli.Options(), ["--preset", "p"])
    with pytest.raises(ConfigError, match="--config: expected a value"):
        cli.split_options(["--config"], presets="")


def test_exit_code_and_error_of_a_process_are_those_of_main(tmp_path):
    command = [sys.executable, "-m", "vatt", "pretain"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "perhaps you meant: vatt pretrain" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        ([], 2, "usage: vatt COMMAND"),
        (["pretain"], 2, "perhaps you meant: vatt pretrain"),
        (["pretrain", "--preset", "huge"], 2, "--preset: found 'huge'; expected a model folder"),
        (["pretrain", "--no-such-setting", "1"], 2, "no-such-setting"),
        (["prepare", "nowhere", "--out", "out"], 1, "nowhere"),
        (["report", "nowhere"], 1, "nowhere"),
    ],
)
def test_what_goes_wrong_is_said_on_stderr_with_its_exit_code(
    args, code, words, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:  # tyro ends so on wrong usage
        sys.exit(cli.main(args))
    printed = capsys.readouterr()
    assert (stop.value.code, printed.out) == (code, "")
    assert words in " ".join(printed.err.split())


def test_a_path_that_cannot_be_used_is_an_error_and_no_traceback(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("vatt_demo.recorder.engine_folder", lambda: None)
    (tmp_path / "file").write_text("")
    assert cli.main(["demo", "record", "--out", str(tmp_path / "file")]) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert error.startswith("vatt: error: ")
    assert "file/rows: Not a directory; give another path" in error


def test_the_first_word_of_a_command_is_answered_with_the_whole(capsys):
    assert cli.main(["debug"]) == 2
    assert "perhaps you meant: vatt debug replay" in capsys.readouterr().err


def test_a_command_whose_package_is_absent_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "vatt_demo", None)
    monkeypatch.delitem(sys.modules, "vatt_demo.demo", raising=False)
    assert cli.main(["demo"]) == 1
    assert 'pip install "vatt[demo]"' in " ".join(capsys.readouterr().err.split())


def test_an_error_is_wrapped_under_its_first_line(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "60")
    render.error(
        "clips/042.mp4: needs 3.2 s from 7.0 s, but the video ends at 8.1 s; start earlier"
    )
    assert capsys.readouterr().err.splitlines() == [
        "vatt: error: clips/042.mp4: needs 3.2 s from 7.0 s, but the",
        "             video ends at 8.1 s; start earlier",
    ]


@dataclass(frozen=True)
class Result:
    path: Path
    seconds: float
    scores: dict[str, dict[str, float]]


def test_results_are_one_line_of_json_or_tables(capsys):
    scores = {"svm": {"action": 0.41, "sound_event": float("nan")}, "knn": {"action": 0.25}}
    result = Result(path=Path("runs/a"), seconds=1.5, scores=scores)
    render.result(result, as_json=True)
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert json.loads(line) == {
        "path": "runs/a",
        "seconds": 1.5,
        "scores": {"svm": {"action": 0.41, "sound_event": None}, "knn": {"action": 0.25}},
    }
    render.result(result, as_json=False)
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["path", "runs/a"] in shown
    assert ["action", "sound", "event"] in shown
    assert ["knn", "0.25", "–"] in shown


def test_names_with_brackets_and_colons_are_shown_as_they_are_and_sentences_one_a_line(capsys):
    names = ["[/red].vtt: not read, no times", "talk [dQw4w9WgXcQ] :smile:.srt: not read, empty"]
    render.result({"unread": names, "short": ["a", "b"]}, as_json=False)
    shown = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert [line for line in shown if line] == [f"unread  {names[0]}", names[1], "short   a, b"]


def test_names_of_files_keep_their_underscores(capsys):
    render.result({"lost_seconds": {"my_film.mp4": 2.5}, "skipped_files": 1}, as_json=False)
    shown = capsys.readouterr().out
    assert "my_film.mp4" in shown
    assert "lost seconds" in shown
    assert "skipped files" in shown


def test_what_other_libraries_say_beside_warnings_is_not_for_users(capsys):
    handler = cli._StderrHandler()
    for name in ("vatt.tasks.finetune", "torch._subclasses"):
        for level in (logging.INFO, logging.WARNING):
            handler.emit(logging.LogRecord(name, level, "", 0, f"{name} {level}", None, None))
    assert capsys.readouterr().err.splitlines() == [
        "vatt.tasks.finetune 20", "vatt.tasks.finetune 30", "torch._subclasses 30",
    ]  # fmt: skip
