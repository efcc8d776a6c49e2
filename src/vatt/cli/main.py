"""`vatt COMMAND …`: a table of commands; each is a module of `vatt.tasks`, imported when asked for.

A command's settings are its config dataclass. They come from a preset, then a TOML file, then the
command line, and are checked once, together (`vatt.config`). Results go to stdout, progress and
errors to stderr. Exit codes: 0 done, 1 could not, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import difflib
import importlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from vatt.cli import render
from vatt.errors import ConfigError, VattError

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


@dataclass(frozen=True, slots=True)
class Command:
    """One line of the table: where the command lives and what it does.

    `module` holds a config dataclass named `config` and `run(config) -> Result`. `presets`: the
    command starts from a preset of `vatt.presets`. `resumes`: the same command, given again after
    an interruption, continues.
    """

    module: str
    config: str
    summary: str
    presets: bool = False
    resumes: bool = False


COMMANDS = {
    "demo": Command(
        "vatt_demo.demo",
        "DemoConfig",
        "the whole line on real clips, in minutes: record, prepare, pre-train, evaluate, report",
        resumes=True,
    ),
    "demo record": Command(
        "vatt_demo.record",
        "RecordConfig",
        "record the demo's clips: a simulated player, with sound and timed captions",
        resumes=True,
    ),
    "prepare": Command(
        "vatt.tasks.prepare",
        "PrepareConfig",
        "turn folders of media and captions into shards with an index",
        resumes=True,
    ),
    "index-shards": Command(
        "vatt.tasks.index_shards",
        "IndexShardsConfig",
        "use WebDataset tars made by others as they are: write an index beside them",
        resumes=True,
    ),
    "audit": Command(
        "vatt.tasks.audit",
        "AuditConfig",
        "check shards: bytes, pictures, sound, captions, duplicates, leaks between splits",
    ),
    "pretrain": Command(
        "vatt.tasks.pretrain",
        "PretrainConfig",
        "learn video, audio and text representations from shards",
        presets=True,
        resumes=True,
    ),
    "zero-shot": Command(
        "vatt.tasks.zero_shot",
        "ZeroShotConfig",
        "retrieval between video, audio and text, and classification by text prompts",
    ),
    "linear-eval": Command(
        "vatt.tasks.linear_eval",
        "LinearEvalConfig",
        "classifiers on frozen features, beside random initialisation and chance",
    ),
    "report": Command(
        "vatt.tasks.report",
        "ReportConfig",
        "one self-contained HTML page: tables, curves, maps of the spaces, film strips",
    ),
    "convert": Command(
        "vatt.tasks.convert",
        "ConvertConfig",
        "make a model folder of an official TensorFlow checkpoint, without TensorFlow",
    ),
    "info": Command(
        "vatt.tasks.info",
        "InfoConfig",
        "what a model costs: parameters, tokens, FLOPs, memory; the paper's own numbers",
        presets=True,
    ),
    "bench loader": Command(
        "vatt.tasks.bench_loader",
        "BenchLoaderConfig",
        "clips per second from shards, where the time goes, how many cores an accelerator needs",
    ),
}


@dataclass(frozen=True, slots=True)
class Options:
    """What every command takes beside its own settings."""

    preset: str | None = None
    bundle: str | None = None
    config: str | None = None
    print_config: bool = False
    json: bool = False


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[_StderrHandler()])
    try:
        if not args or args[0] in ("-h", "--help", "help"):
            return _help(wrong_usage=not args)
        if args[0] in ("-V", "--version"):
            render.version()
            return DONE
        name, rest = find_command(args)
        return _run(name, rest)
    except KeyboardInterrupt:
        return _interrupted(args)
    except ConfigError as error:
        render.error(str(error))
        return USAGE
    except VattError as error:
        render.error(str(error))
        return FAILED
    except BrokenPipeError:  # the reader of our output, e.g. `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Log lines go to today's `sys.stderr`: a progress bar on screen may have replaced it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        self.stream = sys.stderr
        super().emit(record)


def _help(*, wrong_usage: bool) -> int:
    render.overview({name: command.summary for name, command in COMMANDS.items()}, wrong_usage)
    return USAGE if wrong_usage else DONE


def find_command(args: Sequence[str]) -> tuple[str, list[str]]:
    """The command's name, of one or two words, and the arguments after it.

    Raises:
        ConfigError: there is no such command; says which is near.
    """
    for words in (2, 1):
        name = " ".join(args[:words])
        if name in COMMANDS:
            return name, list(args[words:])
    near = difflib.get_close_matches(args[0], COMMANDS, n=1)
    hint = f"perhaps you meant: vatt {near[0]}" if near else "see: vatt --help"
    raise ConfigError(f"{args[0]!r} is not a command; {hint}")


def _interrupted(args: Sequence[str]) -> int:
    name, _ = find_command(args)
    again = "; the same command continues from here" if COMMANDS[name].resumes else ""
    render.error(f"interrupted{again}")
    return INTERRUPTED


def _run(name: str, args: Sequence[str]) -> int:
    from vatt.cli import resolve as settings

    command = COMMANDS[name]
    module = importlib.import_module(command.module)
    config_class, run = getattr(module, command.config), module.run
    options, rest = split_options(args, presets=command.presets)
    resolved = settings.resolve(
        config_class,
        rest,
        prog=f"vatt {name}",
        presets=presets(options),
        file=options.config,
        notes=options_help(presets=command.presets),
    )
    if options.print_config:
        render.settings(resolved.lines(), as_json=options.json)
        return DONE
    return _show(run, resolved.config, as_json=options.json)


def _show(run: Callable[[Any], Any], config: Any, *, as_json: bool) -> int:
    result = run(config)
    if int(os.environ.get("RANK", "0")) == 0:  # under torchrun, one of the processes speaks
        render.result(result, as_json=as_json)
    problem = getattr(result, "problem", None)  # found and shown whole, but not good
    if problem:
        render.error(problem)
    return FAILED if problem else DONE


def presets(options: Options) -> list[tuple[str, Any]]:
    """The preset and the bundle that are asked for: name and values.

    Raises:
        ConfigError: there is no preset or bundle of that name.
    """
    if options.preset is None and options.bundle is None:
        return []
    from vatt.presets import BUNDLES, PRESETS, bundle, of_folder

    found: list[tuple[str, Any]] = []
    name = options.preset
    if name in PRESETS:
        found.append((f"preset {name}", PRESETS[name]()))
    elif name is not None and (Path(name) / "config.json").is_file():
        found.append((f"preset {name}", of_folder(Path(name))))
    elif name is not None:
        raise ConfigError(
            f"--preset: found {name!r}; expected a model folder (with config.json), or one of: "
            f"{', '.join(PRESETS)}"
        )
    if options.bundle is not None:
        if options.bundle not in BUNDLES:
            raise ConfigError(f"--bundle: found {options.bundle!r}; expected paper or official")
        so_far = found[0][1] if found else {}
        found.append((f"bundle {options.bundle}", bundle(options.bundle, so_far)))
    return found


def split_options(args: Sequence[str], *, presets: bool) -> tuple[Options, list[str]]:
    """Take the options that every command has out of `args`; the rest are settings.

    Raises:
        ConfigError: an option that needs a value has none.
    """
    valued = ("--preset", "--bundle", "--config") if presets else ("--config",)
    flags = ("--print-config", "--json")
    found: dict[str, Any] = {}
    rest: list[str] = []
    queue = list(args)
    while queue:
        word = queue.pop(0)
        option, equals, value = word.partition("=")
        option = option.replace("_", "-")
        if option in valued:
            if not equals and not queue:
                raise ConfigError(f"{option}: expected a value after it")
            found[option[2:]] = value if equals else queue.pop(0)
        elif option in flags and not equals:
            found[option[2:].replace("-", "_")] = True
        else:
            rest.append(word)
    return Options(**found), rest


def options_help(*, presets: bool) -> str:
    """What `vatt COMMAND --help` says about the options of every command."""
    own = (
        "--preset NAME or model folder (start from it), --bundle paper|official (one side of all "
        "their differences), "
    )
    return (
        f"Every command also takes: {own if presets else ''}--config FILE (TOML with the settings "
        "below, laid over presets), --print-config (show each value and where it comes from, do "
        "nothing), --json (the result as one JSON line on stdout)."
    )


if __name__ == "__main__":
    sys.exit(main())
