"""`vatt COMMAND …`: the table of commands, and how one command line runs.

A new command is a module with a config dataclass and `run(config) -> result`, and an entry of
`COMMANDS`; the module is imported only when its command is given. Settings come from a preset, then
a TOML file, then the command line, and are checked once, together (`vatt.config`). Results go to
stdout, progress and errors to stderr. Exit codes: 0 done, 1 could not, 2 wrong usage, 130
interrupted.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

from vatt import __version__
from vatt.cli import render
from vatt.errors import ConfigError, MissingExtraError, VattError

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


@dataclass(frozen=True, slots=True)
class Command:
    """Where a command lives and what it does.

    `config` names the dataclass of its settings. `presets`: the command starts from a preset of
    that table of `vatt.presets`. `resumes`: the same command, given again after an interruption,
    continues.
    """

    module: str
    config: str
    summary: str
    presets: str = ""
    resumes: bool = False


COMMANDS = {
    "demo": Command(
        "vatt_demo.demo",
        "DemoConfig",
        "all of it on recorded clips, in minutes: record, prepare, pre-train, evaluate, report",
        resumes=True,
    ),
    "demo record": Command(
        "vatt_demo.recorder",
        "RecordConfig",
        "record the demo's clips: a simulated player, with audio and timed captions",
        resumes=True,
    ),
    "datasets": Command(
        "vatt.tasks.datasets",
        "DatasetsConfig",
        "public data sets by name: list them, check how much of one is in a folder",
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
        "check shards: bytes, frames, audio, captions, duplicates, leaks between splits",
    ),
    "pretrain": Command(
        "vatt.tasks.pretrain",
        "PretrainConfig",
        "learn video, audio and text representations from shards",
        presets="PRESETS",
        resumes=True,
    ),
    "finetune": Command(
        "vatt.tasks.finetune",
        "FinetuneConfig",
        "train a classifier of video, audio or images from labels",
        presets="FINETUNE_PRESETS",
        resumes=True,
    ),
    "evaluate": Command(
        "vatt.tasks.evaluate",
        "EvaluateConfig",
        "judge a fine-tuned classifier: accuracy, or mAP and AUC, over several views",
    ),
    "predict": Command(
        "vatt.tasks.predict",
        "PredictConfig",
        "the likeliest classes of files, by a fine-tuned classifier",
    ),
    "zero-shot": Command(
        "vatt.tasks.zero_shot",
        "ZeroShotConfig",
        "retrieval between video, audio and text, and classification by text prompts",
    ),
    "linear-eval": Command(
        "vatt.tasks.linear_eval",
        "LinearEvalConfig",
        "classifiers on frozen features, beside an untrained network and chance",
    ),
    "reproduce": Command(
        "vatt.reproduce.paper_beside_ours",
        "ReproduceConfig",
        "a table of the paper on the data sets in a folder: its rows beside ours, or what it needs",
        resumes=True,
    ),
    "search": Command(
        "vatt.tasks.search",
        "SearchConfig",
        "moments of a library that fit words, audio, a clip or an image",
    ),
    "serve": Command(
        "vatt.tasks.serve",
        "ServeConfig",
        "a page to search a library with, and to watch what is found",
    ),
    "report": Command(
        "vatt.tasks.report",
        "ReportConfig",
        "one self-contained HTML page: tables, curves, maps of the spaces, examples",
    ),
    "convert": Command(
        "vatt.tasks.convert",
        "ConvertConfig",
        "make a model folder of an official TensorFlow checkpoint, without TensorFlow",
    ),
    "export": Command(
        "vatt.tasks.export",
        "ExportConfig",
        "write a model as ONNX or torch.export files, checked against the model",
    ),
    "push": Command(
        "vatt.tasks.push",
        "PushConfig",
        "upload a model folder to a hub, with a model card made from its results",
    ),
    "models": Command(
        "vatt.tasks.models",
        "ModelsConfig",
        "the official checkpoints: list them, download and convert one",
        resumes=True,
    ),
    "info": Command(
        "vatt.tasks.info",
        "InfoConfig",
        "what a model costs: parameters, tokens, FLOPs, memory; the paper's own numbers",
        presets="PRESETS",
    ),
    "checkpoint merge": Command(
        "vatt.tasks.checkpoint_merge",
        "CheckpointMergeConfig",
        "make one folder of a checkpoint that several processes wrote, each its part",
    ),
    "embed": Command(
        "vatt.tasks.embed",
        "EmbedConfig",
        "make an index of a library: any films, window by window, to be searched",
        resumes=True,
    ),
    "index check": Command(
        "vatt.tasks.index_check",
        "IndexCheckConfig",
        "whether an index finds what is in it: recall, speed, every vector itself",
    ),
    "index merge": Command(
        "vatt.tasks.index_merge",
        "IndexMergeConfig",
        "join indexes of one model",
        resumes=True,
    ),
    "index export": Command(
        "vatt.tasks.index_export",
        "IndexExportConfig",
        "write an index as Parquet files",
    ),
    "debug replay": Command(
        "vatt.tasks.debug_replay",
        "DebugReplayConfig",
        "compute again a step that was not finite: which module and which clips it began with",
    ),
    "bench": Command(
        "vatt.tasks.bench",
        "BenchConfig",
        "how fast a training step is: clips/s, share of the matmul peak, memory, a peer beside it",
        presets="PRESETS",
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
    level = logging.INFO if _prints() else logging.WARNING
    logging.basicConfig(level=level, format="%(message)s", handlers=[_StderrHandler()])
    name = None
    try:
        if not args or args[0] in ("-h", "--help", "help"):
            render.overview({name: one.summary for name, one in COMMANDS.items()}, bool(not args))
            return DONE if args else USAGE
        if args[0] in ("-V", "--version"):
            print(f"vatt {__version__}")
            return DONE
        name, rest = find_command(args)
        return _run(name, rest)
    except KeyboardInterrupt:
        if _prints():
            resumes = name is not None and COMMANDS[name].resumes
            advice = "; the same command continues from here" if resumes else ""
            render.error(f"interrupted{advice}")
        return INTERRUPTED
    except VattError as error:
        render.error(f"{_by_rank()}{error}")
        return error.exit_code
    except BrokenPipeError:  # the reader of our output, e.g. `head`, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:  # where no command says better what to do
        where = f"{error.filename}: " if error.filename else ""
        render.error(
            f"{_by_rank()}{where}{error.strerror or error}; give another path, or look at what is "
            "there, who may write to it, and how much room its disk has"
        )
        return FAILED


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to what `sys.stderr` is now: a progress bar on screen may have replaced it.

    Of other libraries only warnings are for users.
    """

    def emit(self, record: logging.LogRecord) -> None:
        ours = record.name.partition(".")[0] in ("vatt", "vatt_demo", "__main__")
        if not ours and record.levelno < logging.WARNING:
            return
        self.stream = sys.stderr
        super().emit(record)


def find_command(args: Sequence[str]) -> tuple[str, list[str]]:
    """The command's name, of one or two words, and the arguments after it.

    Raises:
        ConfigError: there is no such command; says which is near.
    """
    for words in (2, 1):
        name = " ".join(args[:words])
        if name in COMMANDS:
            return name, list(args[words:])
    near = [name for name in COMMANDS if name.startswith(f"{args[0]} ")]
    near = near or difflib.get_close_matches(args[0], COMMANDS, n=1)
    hint = f"perhaps you meant: vatt {near[0]}" if near else "see: vatt --help"
    raise ConfigError(f"{args[0]!r} is not a command; {hint}")


def _run(name: str, args: Sequence[str]) -> int:
    from vatt.cli import resolve as settings

    command = COMMANDS[name]
    try:
        module = importlib.import_module(command.module)
    except ModuleNotFoundError as error:
        package = command.module.partition(".")[0]
        if package == "vatt" or error.name not in (package, command.module):
            raise
        raise MissingExtraError(package, "demo", f"vatt {name}") from error
    options, rest = split_options(args, presets=command.presets)
    presets = []
    notes = (
        "--config FILE (TOML with the settings below, laid over presets), --print-config (show "
        "each value and where it comes from, do nothing), --json (the result as one JSON line on "
        "stdout)."
    )
    if command.presets:
        import vatt.presets

        table = getattr(vatt.presets, command.presets)
        presets = vatt.presets.starting_values(options.preset, options.bundle, table)
        more = "), "
        if table is vatt.presets.PRESETS:
            more = (
                ", or from a model folder), --bundle paper|official (one side of all their "
                "differences), "
            )
        notes = f"--preset NAME (start from {', '.join(table)}{more}{notes}"
    resolved = settings.resolve(
        getattr(module, command.config),
        rest,
        prog=f"vatt {name}",
        presets=presets,
        file=options.config,
        notes=f"Also: {notes}",
    )
    if options.print_config:
        render.settings(resolved.lines(), as_json=options.json)
        return DONE
    result = module.run(resolved.config)
    if _prints():
        render.result(result, as_json=options.json)
    if problem := getattr(result, "problem", None):  # the result is complete, but not good
        render.error(problem)
        return FAILED
    return DONE


def _prints() -> bool:
    """Whether this is the one of the processes of `torchrun` that prints."""
    return int(os.environ.get("RANK", "0")) == 0


def _by_rank() -> str:
    """Which of the processes of `torchrun` an error is of, if it is not the one that prints."""
    return "" if _prints() else f"rank {os.environ['RANK']}: "


def split_options(args: Sequence[str], *, presets: str) -> tuple[Options, list[str]]:
    """Take the options that every command has out of `args`; the rest are settings.

    Raises:
        ConfigError: an option that needs a value has none.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    own = ["--preset"] * bool(presets) + ["--bundle"] * (presets == "PRESETS")
    for option in (*own, "--config"):
        parser.add_argument(option)
    parser.add_argument("--print-config", "--print_config", action="store_true")
    parser.add_argument("--json", action="store_true")
    try:
        found, rest = parser.parse_known_args(args)
    except argparse.ArgumentError as error:
        said = error.message.replace("expected one argument", "expected a value after it")
        raise ConfigError(f"{error.argument_name}: {said}") from error
    return Options(**vars(found)), rest


if __name__ == "__main__":
    sys.exit(main())
