"""What fine-tuning reaches on real data, beside simple baselines: mean and spread over seeds.

    python benchmarks/downstream.py video --run runs/demo
    python benchmarks/downstream.py few --run runs/demo-long
    python benchmarks/downstream.py drop-token --run runs/demo
    python benchmarks/downstream.py audio --run runs/demo --data /usr/share/hydrogen
    python benchmarks/downstream.py image --run runs/demo --data /usr/share/openclipart

--run is the demo's run folder that fine-tuning starts from; --data a folder of files that a Debian
package installed. Each prints a table and ends in one JSON line of accuracies in [0, 1]. Trials lie
in --out: finished ones are only read, an interrupted command goes on.
"""

from __future__ import annotations

import argparse
import json
from importlib import import_module
from pathlib import Path

TASKS = ("video", "few", "drop-token", "audio", "image")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/downstream"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="under 3 minutes, one seed")
    chosen = parser.parse_args()
    name: str = chosen.task
    if name in ("audio", "image") and chosen.data is None:
        parser.error(f"{name}: --data FOLDER is needed: what the Debian package installed")
    kind = "quick" if chosen.quick else "full"
    measured = import_module(f"downstream_{name.replace('-', '_')}").measure(
        run=chosen.run,
        data=chosen.data,
        out=chosen.out / f"{name}-{kind}",
        seeds=range(1 if chosen.quick else chosen.seeds),
        quick=chosen.quick,
    )
    print(json.dumps({name.replace("-", "_"): measured}))


if __name__ == "__main__":
    main()
