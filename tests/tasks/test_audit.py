from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.data.scenes import Scene, write_scenes
from tests.faults.test_prepare_stopped import listen_to_ctrl_c
from vatt.audit.findings import KINDS
from vatt.cli.main import main
from vatt.errors import ConfigError
from vatt.tasks.audit import AuditConfig, AuditResult, run

GOOD = [Scene(seed=1), Scene(seed=2)]


def audit(*folders: Path, **changes: object) -> AuditResult:
    return run(replace(AuditConfig(folders=folders, workers=1), **changes))  # type: ignore[arg-type]


def found(result: AuditResult) -> dict[str, int]:
    """Kind → how often; without what depends on installed packages."""
    counts = {row["kind"]: row["count"] for row in result.found}
    counts.pop("not looked at", None)
    return counts


def test_the_page_explains_every_kind_of_finding() -> None:
    text = (Path(__file__).parents[2] / "docs" / "audit.md").read_text()
    for name, kind in KINDS.items():
        assert f"| `{name}` | {kind.severity} | {kind.means} | {kind.to_do} |" in text


def test_a_clean_folder_gives_no_finding_and_says_what_was_checked(tmp_path, capfd) -> None:
    write_scenes(tmp_path, GOOD)
    assert main(["audit", str(tmp_path), "--json", "--workers", "1"]) == 0
    result = json.loads(capfd.readouterr().out)
    assert [row for row in result["found"] if row["kind"] != "not looked at"] == []
    assert result["checked"] == {
        "shards": {"expected": 1, "checked": 1},
        "videos": {"expected": 2, "checked": 2},
    }
    totals = result["totals"]
    assert (totals["whole videos"], totals["videos with sound"]) == (2, 2)
    assert totals["videos with captions"] == 2


def test_damage_is_exit_code_1_a_page_with_pictures_and_advice(tmp_path, capfd) -> None:
    data = write_scenes(tmp_path, [*GOOD, replace(GOOD[0], still=True), Scene(seed=3)])
    with (tmp_path / "shard-000000.tar").open("r+b") as file:
        file.seek(int(data.column("video_offset")[1]) + 900)
        file.write(b"\0\0\0\0")
    assert main(["audit", str(tmp_path), "--workers", "1"]) == 1
    out, err = capfd.readouterr()
    assert "damage was found (1 checksum)" in " ".join(err.split())
    assert re.search(r"error\s+checksum\s+1\s+copy the shard again", out)
    assert re.search(r"warning\s+frozen\s+1", out)
    report = json.loads((tmp_path / "audit.json").read_text())
    kinds = [one["kind"] for one in report["findings"]]
    assert [kind for kind in kinds if kind != "not looked at"] == ["checksum", "frozen"]
    page = (tmp_path / "audit.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 2  # what is damaged decodes all the same here
    assert "http" not in page.replace("http-equiv", "")


def test_warnings_alone_are_exit_code_0(tmp_path: Path) -> None:
    write_scenes(tmp_path, [*GOOD, GOOD[0]])
    result = audit(tmp_path)
    assert found(result) == {"same content": 1}
    assert result.problem is None


def test_folders_are_compared_with_each_other(tmp_path: Path) -> None:
    write_scenes(tmp_path / "a", GOOD)
    write_scenes(tmp_path / "b", [replace(GOOD[1], split="test"), Scene(seed=5)])
    result = audit(tmp_path / "a", tmp_path / "b", out=tmp_path / "report")
    assert found(result) == {"leak: same content": 1}
    (finding,) = [
        one for one in json.loads(result.report.read_text())["findings"] if one["key"] == "v1"
    ]
    assert finding["others"] == [[str(tmp_path / "b"), "v0"]]
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == [
        "audit.html",
        "audit.json",
    ]


def test_a_share_of_the_videos_is_said_to_be_one(tmp_path: Path) -> None:
    write_scenes(tmp_path, [Scene(seed=seed, frames=5, sound=None) for seed in range(5)])
    result = audit(tmp_path, videos=2)
    assert result.checked["videos"] == {"expected": 5, "checked": 2}


@pytest.mark.parametrize("name", ["dataset.json", "index.parquet"])
def test_a_folder_that_cannot_be_read_is_a_finding_and_the_others_go_on(
    name: str, tmp_path: Path
) -> None:
    write_scenes(tmp_path / "a", GOOD[:1])
    write_scenes(tmp_path / "b", GOOD[1:])
    (tmp_path / "a" / name).write_bytes(b"PAR1 nothing")
    result = audit(tmp_path / "a", tmp_path / "b")
    assert found(result) == {"unreadable folder": 1}
    assert result.problem is not None
    assert result.checked["videos"] == {"expected": 1, "checked": 1}


def test_a_folder_that_does_not_exist_or_is_given_twice_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        audit(tmp_path / "absent")
    with pytest.raises(ConfigError, match="one twice"):
        audit(tmp_path, tmp_path / "." / "")


@pytest.mark.slow
def test_ctrl_c_ends_an_audit_and_its_processes(tmp_path: Path) -> None:
    write_scenes(tmp_path, [Scene(seed=1, frames=100)] * 100)
    command = [sys.executable, "-m", "vatt", "audit", str(tmp_path), "--deep"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=listen_to_ctrl_c,
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not children.read_text():  # until it has processes to end
        time.sleep(0.02)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err.decode()
    assert b"Traceback" not in err
    assert not (tmp_path / "audit.json").exists()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("processes of the audit are left")
