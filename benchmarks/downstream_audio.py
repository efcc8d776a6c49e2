"""Which of 7 kinds of drums is hit? Fine-tuned, from scratch, and by linear classifiers.

The audio is Hydrogen's drum kits (Debian package hydrogen-drumkits), each file once, its class
by the name of the instrument. Whole kits are held out: 5 groups of kits, those of one maker
together; each group is tested once, by models that were trained on three others and chosen by the
fourth. The recipe is the preset finetune-small-audio with clips of 0.93 s from the hit on. From
scratch it takes as many steps as validation asks for. Beside it stands logistic regression, on
log-mel spectrograms and on the run's frozen features. Seeds change fresh weights, order and
augmentation.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple
from xml.parsers import expat

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad
from trials import (
    SPLITS,
    LabelledFile,
    best_validation,
    different_files,
    linear_scores,
    mean_and_spread,
    print_table,
    shortest_of_the_best,
    spread,
    trial,
    write_table,
)

import vatt
from vatt.config import merge
from vatt.errors import DataError, MediaError
from vatt.media.media_file import open_media
from vatt.models.spectrogram import SpectrogramConfig, log_mel

CLASSES = {  # by the instrument's name in lower case
    "clap": r"clap",
    "cymbal": r"crash|ride|splash|china|cymbal",
    "hihat": r"hi-?\s?hat|\bo?hh\b|\bhat\b",
    "kick": r"kick|bass ?drum",
    "perc": r"bongo|conga|cowbell|agogo|tambourine|maraca|clave|woodblock",
    "snare": r"snare",
    "tom": r"\btom",
}
GROUPS = 5
CLIP_S = 0.93
PEAK = 0.5  # of each clip, as in the preset: files differ in loudness by a hundred times
STEPS, SCRATCH = 80, (120, 240)
# No features yet that logistic regression could begin with.
FRESH = {"model": {"linear_first": "none"}, "optim": {"learning_rate": 1e-3}}
RATE_HZ = 11_025  # as of the run
SAMPLES = round(CLIP_S * RATE_HZ)
AS_FINETUNED = "one loudness, short ones end in silence"
LOG_MEL = SpectrogramConfig(
    window_s=0.046, step_s=0.023, bands=40, lowest_hz=40.0, highest_hz=5300.0
)


class Hit(NamedTuple):
    """A file, its class, and who made its kit."""

    path: Path
    label: str
    maker: str


def measure(
    *, run: Path, data: Path | None, out: Path, seeds: Sequence[int], quick: bool
) -> Mapping[str, float]:
    """Print the table; accuracies in [0, 1] over the files of all groups."""
    hits = drum_hits(data or Path())
    groups = grouped(hits)
    usual, lengths = (60, (60,)) if quick else (STEPS, SCRATCH)
    splits = [in_splits(hits, groups, test) for test in range(1 if quick else GROUPS)]
    tables = [write_table(out / f"group-{at}.csv", files) for at, files in enumerate(splits)]

    def folder(name: str, steps: int, group: int, seed: int) -> Path:
        return out / f"{name}-{steps}-group-{group}-seed-{seed}"

    def results(name: str, steps: int, seed: int) -> list[Mapping[str, Any]]:
        def result(group: int, table: Path) -> Mapping[str, Any]:
            here = folder(name, steps, group, seed)
            first = folder("finetuned", usual, group, seeds[0])  # it prepares the group's files
            shards = {"shards": [str(first / "shards")]}
            changes: dict[str, Any] = {
                "start_from": str(run),
                "scratch": name == "scratch",
                # All of them, each as often as the others, in one clip of what is labelled: its
                # beginning. Without `few`, of long files most clips would begin after the hit.
                "few": len(hits),
                "clip": {"frames": 1, "fps": 1 / CLIP_S},
                "train": {"steps": steps},
                "eval_every": max(20, steps // 6),
                "seed": seed,
                **({"src": [str(table)]} if here == first else {"data": shards}),
            }
            if name == "scratch":
                changes = merge(changes, FRESH)
            return trial(here, "finetune-small-audio", changes)

        return [result(group, table) for group, table in enumerate(tables)]

    tuned = [results("finetuned", usual, seed) for seed in seeds]
    validated = list[float]()
    for steps in lengths:
        results("scratch", steps, seeds[0])
        trials = [folder("scratch", steps, group, seeds[0]) for group in range(len(tables))]
        validated.append(mean(map(best_validation, trials)))
    chosen = lengths[shortest_of_the_best(validated)]
    scratch = [results("scratch", chosen, seed) for seed in seeds]
    finetuned, fresh = list(map(over_all, tuned)), list(map(over_all, scratch))
    waveforms = {one.path: waveform(one.path) for one in splits[0]}
    linear = over_all_linear(splits, log_mel_rows(waveforms))
    frozen = {name: over_all_linear(splits, rows) for name, rows in frozen_rows(waveforms, run)}
    probe = frozen[AS_FINETUNED]
    majority = over_all_majority(splits)
    print_table(
        (f"{len(CLASSES)} kinds of drums, kits held out", "accuracy"),
        (
            (f"fine-tuned from the run, {usual} steps", mean_and_spread(finetuned)),
            (f"from scratch, {chosen} steps", mean_and_spread(fresh)),
            *(
                (f"frozen features of the run, logistic regression, {name}", f"{one:.3f}")
                for name, one in frozen.items()
            ),
            ("log-mel spectrogram, logistic regression", f"{linear:.3f}"),
            ("most frequent class", f"{majority:.3f}"),
        ),
    )
    expected = sum(one.split == "test" for files in splits for one in files)
    tried = ", ".join(f"{n} steps {one:.3f}" for n, one in zip(lengths, validated, strict=True))
    print(
        f"\n{sum(one['n_evaluated'] for one in tuned[0])} of {expected} files are evaluated. "
        f"From scratch, validation: {tried}\n"
    )
    return {
        "finetuned": mean(finetuned),
        "scratch": mean(fresh),
        "probe": probe,
        "log_mel": linear,
        "majority": majority,
        "spread": spread(finetuned),
    }


def over_all(results: Sequence[Mapping[str, Any]]) -> float:
    """The accuracy over the test files of all groups."""
    number = [one["n_evaluated"] for one in results]
    return float(np.average([one["measures"]["top1"] for one in results], weights=number))


# ── baselines ────────────────────────────────────────────────────────────────────────────────────


def over_all_linear(
    splits: Sequence[Sequence[LabelledFile]], rows: Mapping[Path, NDArray[np.float32]]
) -> float:
    """Accuracy of logistic regression on a row for each file, over the test files of all groups.

    It is trained on the files that the models are. How regular it is, is chosen once, by the
    mean of the groups' validations, as the recipe of fine-tuning was.
    """
    found, numbers = list[NDArray[np.float64]](), list[int]()
    for files in splits:
        parts = {name: [one for one in files if one.split == name] for name in SPLITS}
        examples = [
            (np.stack([rows[one.path] for one in part]), [one.label for one in part])
            for part in parts.values()
        ]
        found.append(linear_scores(*examples))
        numbers.append(len(parts["test"]))
    validated, tested = np.moveaxis(np.stack(found), 2, 0)  # [groups, strengths] each
    return float(np.average(tested[:, validated.mean(0).argmax()], weights=numbers))


def log_mel_rows(waveforms: Mapping[Path, Tensor]) -> dict[Path, NDArray[np.float32]]:
    """Log-mel spectrograms, each in one row."""
    every = torch.stack([in_silence(one) for one in waveforms.values()])
    found = log_mel(every, RATE_HZ, LOG_MEL)
    return dict(zip(waveforms, found.flatten(1).numpy(), strict=True))


def frozen_rows(
    waveforms: Mapping[Path, Tensor], run: Path
) -> Iterator[tuple[str, dict[Path, NDArray[np.float32]]]]:
    """Features of the run's audio backbone, of files as they are and as they are fine-tuned on."""
    encoder = vatt.load(run, autocast="off")
    level = {
        path: one * (PEAK / one.abs().max().clamp(min=1e-4)) for path, one in waveforms.items()
    }
    for name, files, whole in (
        ("files as they are, short ones begun again", waveforms, begun_again),
        ("one loudness, short ones begun again", level, begun_again),
        (AS_FINETUNED, level, in_silence),
    ):
        clips = torch.stack([whole(one) for one in files.values()])
        found = encoder.encode_audio(clips, sample_rate_hz=RATE_HZ).features
        yield name, dict(zip(waveforms, found.cpu().numpy(), strict=True))


def waveform(path: Path) -> Tensor:
    """The first CLIP_S, less where the file is shorter, in [-1, 1]."""
    with open_media(path) as media:
        found = media.audio(sample_rate_hz=RATE_HZ)
    if found is None:
        raise MediaError(f"{path}: has no audio")
    return torch.from_numpy(found[:SAMPLES]).float() / 2**15


def in_silence(samples: Tensor) -> Tensor:
    """A whole clip: short audio ends in zeros."""
    return pad(samples, (0, SAMPLES - len(samples)))


def begun_again(samples: Tensor) -> Tensor:
    """A whole clip: short audio begins again."""
    return samples.repeat(-(-SAMPLES // len(samples)))[:SAMPLES]


def over_all_majority(splits: Sequence[Sequence[LabelledFile]]) -> float:
    """Accuracy of the most frequent class of the training files, over the test files."""
    right = number = 0
    for files in splits:
        ((usual, _),) = Counter(one.label for one in files if one.split == "train").most_common(1)
        tested = [one.label == usual for one in files if one.split == "test"]
        right, number = right + sum(tested), number + len(tested)
    return right / number


# ── files ────────────────────────────────────────────────────────────────────────────────────────


def grouped(hits: Sequence[Hit]) -> dict[str, int]:
    """Maker → group: the largest first, each into the group that is the smallest so far."""
    sizes = Counter(hit.maker for hit in hits)
    filled, group = [0] * GROUPS, dict[str, int]()
    for name, number in sorted(sizes.items(), key=lambda one: (-one[1], one[0])):
        group[name] = int(np.argmin(filled))
        filled[group[name]] += number
    return group


def in_splits(hits: Sequence[Hit], groups: Mapping[str, int], test: int) -> list[LabelledFile]:
    """The files with the splits that they have when a group is the test; the next validates."""
    names = {test: "test", (test + 1) % GROUPS: "val"}
    return [
        LabelledFile(hit.path, hit.label, names.get(groups[hit.maker], "train"), CLIP_S)
        for hit in hits
    ]


def drum_hits(folder: Path) -> list[Hit]:
    """The different files of all kits whose instrument has a name of one class."""
    kits = sorted(folder.rglob("drumkit.xml"))
    if not kits:
        raise DataError(
            f"{folder}: holds no drumkit.xml; give the folder of Debian's package "
            "hydrogen-drumkits: apt-get install hydrogen-drumkits, --data /usr/share/hydrogen"
        )
    found, others = list[tuple[Path, str]](), 0
    for instrument, path in (layer for kit in kits for layer in layers(kit)):
        fitting = [name for name, form in CLASSES.items() if re.search(form, instrument)]
        others += len(fitting) != 1
        found += [(path, name) for name in fitting if len(fitting) == 1]
    print(f"{len(kits)} kits; {others} files are of instruments that no class or several fit")
    hits = different_files(found).values()
    return [Hit(path, label, maker(path.parent.name)) for path, label in hits]


def maker(kit: str) -> str:
    """Who made a kit: three are Millo's."""
    return "Millo" if kit.startswith("Millo") else kit


def layers(drumkit: Path) -> Iterator[tuple[str, Path]]:
    """Each file that a kit lists and has, after the name of its instrument in lower case.

    Raises:
        DataError: it is not XML, or defines a document type, which no kit needs.
    """
    reader, parser = _Drumkit(), expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = reader.start, reader.end
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = reader.no_doctype
    try:
        parser.Parse(drumkit.read_bytes(), True)
    except (expat.ExpatError, ValueError) as error:
        raise DataError(f"{drumkit}: cannot be read: {error}") from error
    for instrument, file in reader.rows:
        path = drumkit.parent / file
        if path.parent == drumkit.parent and path.is_file():
            yield instrument.lower(), path


class _Drumkit:
    """Instruments and their files of elements as they open and close."""

    def __init__(self) -> None:
        self.rows = list[tuple[str, str]]()
        self._open, self._texts, self._instrument = list[str](), list[str](), ""

    def start(self, name: str, _: Mapping[str, str]) -> None:
        self._open.append(name)
        self._texts.clear()

    def text(self, text: str) -> None:
        self._texts.append(text)

    def end(self, name: str) -> None:
        self._open.pop()
        inside = self._open[-1] if self._open else ""
        if (inside, name) == ("instrument", "name"):
            self._instrument = "".join(self._texts)
        elif name == "filename" and inside in ("instrument", "layer"):
            self.rows.append((self._instrument, "".join(self._texts)))

    def no_doctype(self, *_: object) -> None:
        raise ValueError("it has a DOCTYPE")
