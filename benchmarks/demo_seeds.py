"""How much does the seed change what `vatt demo` reaches? The table of the README, in Markdown.

    python benchmarks/demo_seeds.py runs/seed-0 runs/seed-1 runs/seed-2

runs the demo with seed 0 into the first folder, and so on; a finished one is only read. Each seed
records other play, too. A cell is the middle of the seeds, with the lowest and highest in brackets.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

Result = Mapping[str, Any]

TEXT, AUDIO = "zero_shot.text_to_video", "zero_shot.audio_to_video"
ACTION, STILL = "linear_eval.video_action", "linear_eval.video_action.still_frame.svm"
TUNED = "finetune.video_action"
WORDS, SOUND = "zero_shot.action_from_text", "linear_eval.sound_event_10"
# What is measured, the keys of chance, untrained, trained and ceiling, and how numbers look.
ROWS = (
    (
        "find the clip for a sentence, among 500: in the first 10",
        tuple(f"{TEXT}.{key}R@10" for key in ("chance_", "random_init_", "", "ceiling_")),
        "{:.1f} %",
    ),
    (
        "… median rank",
        tuple(f"{TEXT}.{key}MedR" for key in ("chance_", "random_init_", "", "ceiling_")),
        "{:g}",
    ),
    (
        "find the clip for a piece of audio, among 500: in the first 10",
        tuple(f"{AUDIO}.{key}R@10" for key in ("chance_", "random_init_", "")),
        "{:.1f} %",
    ),
    (
        "… median rank",
        tuple(f"{AUDIO}.{key}MedR" for key in ("chance_", "random_init_", "")),
        "{:g}",
    ),
    (
        "which of 8 actions: linear classifier on frozen video features",
        (f"{ACTION}.chance", f"{ACTION}.random_init.svm", f"{ACTION}.pretrained.svm"),
        "{:.3f}",
    ),
    ("… one still frame instead of the moving clip", (f"{ACTION}.chance", "", STILL), "{:.3f}"),
    (
        "which of 8 actions: the video backbone fine-tuned on all labels",
        (f"{TUNED}.chance", "", f"{TUNED}.pretrained"),
        "{:.3f}",
    ),
    (
        "which of 8 actions: from sentences alone, no classifier",
        (f"{WORDS}.chance", f"{WORDS}.random_init", f"{WORDS}.pretrained"),
        "{:.3f}",
    ),
    (
        "which of 10 sound events: linear, 10 labels per class, frozen audio features",
        (f"{SOUND}.chance", f"{SOUND}.random_init.svm", f"{SOUND}.pretrained.svm"),
        "{:.3f}",
    ),
)


def main() -> None:
    """Run what is not finished, and print the table."""
    results = [result_of(Path(out), seed) for seed, out in enumerate(sys.argv[1:])]
    print("| on the test maps | chance | untrained | after the demo | ceiling |")
    print("|---|---|---|---|---|")
    for name, keys, form in ROWS:
        cells = [cell(results, key, form) for key in (*keys, "", "")[:4]]
        print(f"| {name} | {' | '.join(cells)} |")
    seconds = [round(result["seconds"]["total"]) for result in results]
    print(f"\n{len(results)} seeds; seconds in all: {seconds}; {results[0]['versions']}")


def result_of(out: Path, seed: int) -> Result:
    """What the demo of a seed reached; it runs unless it has already run."""
    if not (out / "result.json").is_file():
        command = (sys.executable, "-m", "vatt", "demo", "--seed", str(seed), "--out", str(out))
        subprocess.run(command, check=True)
    result: Result = json.loads((out / "result.json").read_text(encoding="utf-8"))
    assert result["seed"] == seed, f"{out}: is of seed {result['seed']}, expected {seed}"
    return result


def cell(results: list[Result], key: str, form: str) -> str:
    """The middle of all seeds, and their range where they differ."""
    if not key:
        return ""
    values = sorted(value_at(result, key) for result in results)
    low, middle, high = (form.format(value) for value in (values[0], median(values), values[-1]))
    return middle if low == high else f"{middle} ({low.removesuffix(' %')}–{high})"


def value_at(result: Result, dotted: str) -> float:
    """A number of result.json."""
    value: Any = result
    for name in dotted.split("."):
        value = value[name]
    return float(value)


if __name__ == "__main__":
    main()
