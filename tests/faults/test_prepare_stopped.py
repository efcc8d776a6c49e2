"""Whatever stops `vatt prepare`, whole shards or none are left, and the same command continues."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from vatt.ingest.journal import Journal
from vatt.shards.read import ShardFolder

VIDEOS = 10  # of 0.4 MB each when stored: three fill a shard of 1 MB
SETTINGS = ("--workers", "2", "--shard_megabytes", "1", "--max_bad_fraction", "0.2")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise, which takes many bytes; and one file that is no video."""
    folder = tmp_path_factory.mktemp("library")
    noise = np.random.default_rng(0)
    for number in range(VIDEOS):
        with av.open(str(folder / f"{number}.avi"), "w") as output:
            stream = output.add_stream("mjpeg", rate=10)
            stream.width, stream.height, stream.pix_fmt = 160, 120, "yuvj420p"
            for _ in range(30 + number):
                picture = noise.integers(0, 256, (120, 160, 3), np.uint8)
                output.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
            output.mux(stream.encode(None))
    (folder / "3 bad.mp4").write_bytes(b"half a download")
    return folder


def command(library: Path, out: Path, *more: str) -> list[str]:
    base = [sys.executable, "-m", "vatt", "prepare", str(library), "--out", str(out)]
    return [*base, *SETTINGS, *more]


def prepare(library: Path, out: Path, *more: str) -> dict:
    run = subprocess.run(
        command(library, out, "--json", *more), capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def start(library: Path, out: Path, *more: str, **how: object) -> subprocess.Popen[str]:
    return subprocess.Popen(  # a session of its own: its workers can be seen after its end
        command(library, out, *more),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **how,  # type: ignore[call-overload]
    )


def listen_to_ctrl_c() -> None:
    """As a terminal's programs do, also when these tests were started in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tar"))}


def assert_whole(out: Path) -> None:
    data = ShardFolder.open(out)
    assert len(data) == VIDEOS
    for row in range(len(data)):
        data.verify(row)
    left = {path.name for path in out.iterdir()} - set(shards(out))
    made = {"config.toml", "dataset.json", "failures.jsonl", "index.parquet", "sources.jsonl"}
    assert left == {".lock", *made}
    (skipped,) = map(json.loads, (out / "failures.jsonl").read_text().splitlines())
    assert skipped["source"] == "3 bad.mp4"


@pytest.fixture(scope="module")
def uninterrupted(library: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("whole")
    prepare(library, out)
    assert_whole(out)
    assert len(shards(out)) >= 3
    return shards(out)


def wait_for(pattern: str, out: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not list(out.glob(pattern)):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.005)


def assert_no_process_is_left(group: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    raise AssertionError("the workers did not see that their parent is gone")


def kill_now_and_then(library: Path, out: Path, *, kills: int, seed: int) -> None:
    """Kill runs at random moments after their workers were started; most do not come to an end."""
    chance = random.Random(seed)
    interrupted = 0
    for _ in range(kills):
        process = start(library, out)
        while not list(out.glob(".work-*")) and process.poll() is None:
            time.sleep(0.005)
        time.sleep(chance.uniform(0.0, 0.35))
        process.kill()
        process.communicate()
        assert_no_process_is_left(process.pid)
        interrupted += process.returncode == -signal.SIGKILL
    assert interrupted >= kills / 2


@pytest.mark.slow
def test_killed_runs_continue_to_the_same_bytes(
    library: Path, uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    kill_now_and_then(library, tmp_path, kills=2, seed=0)
    prepare(library, tmp_path)
    assert_whole(tmp_path)
    assert shards(tmp_path) == uninterrupted


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_runs_killed_many_times_continue_to_the_same_bytes(
    library: Path, uninterrupted: dict[str, bytes], tmp_path: Path, seed: int
) -> None:
    kill_now_and_then(library, tmp_path, kills=6, seed=seed)
    prepare(library, tmp_path)
    assert_whole(tmp_path)
    assert shards(tmp_path) == uninterrupted


@pytest.mark.slow
def test_ctrl_c_says_that_the_same_command_continues(
    library: Path, uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    process = start(library, tmp_path, preexec_fn=listen_to_ctrl_c)
    wait_for("shard-000000.tar", tmp_path, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all processes
    words = process.communicate()[1]
    assert process.returncode == 130, words
    assert "interrupted; the same command continues from here" in words
    assert "stored so far" in words
    assert "Traceback" not in words
    assert_no_process_is_left(process.pid)
    assert not list(tmp_path.glob(".work-*"))
    prepare(library, tmp_path)
    assert shards(tmp_path) == uninterrupted


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB, for those who may mount one."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.slow
def test_a_full_disk_leaves_whole_shards_and_the_command_continues(
    library: Path, uninterrupted: dict[str, bytes], small_disk: Path
) -> None:
    process = start(library, small_disk)
    words = process.communicate()[1]
    assert process.returncode == 1, words
    assert "No space left on device; what is stored so far is whole" in " ".join(words.split())
    assert shards(small_disk).items() < uninterrupted.items()  # none, or some and whole
    remount = ["mount", "-o", "remount,size=50m", str(small_disk)]
    subprocess.run(remount, check=True)
    prepare(library, small_disk)
    assert_whole(small_disk)
    assert shards(small_disk) == uninterrupted


@pytest.mark.slow
def test_a_quota_is_no_fault_of_the_videos(
    library: Path, uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    """The system refuses to write more than 0.1 MB into a file, less than a video needs."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    process = start(library, tmp_path, preexec_fn=limit)
    words = process.communicate()[1]
    assert process.returncode == 1, words
    assert "File too large; what is stored so far is whole" in " ".join(words.split())
    prepare(library, tmp_path)
    assert_whole(tmp_path)
    assert shards(tmp_path) == uninterrupted


@pytest.mark.slow
def test_tasks_at_once_share_the_work_and_the_last_writes_the_index(
    library: Path, uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    tasks = [start(library, tmp_path, "--task", f"{number}/2") for number in (1, 2)]
    for task in tasks:
        words = task.communicate()[1]
        assert task.returncode == 0, words
    data = ShardFolder.open(tmp_path)
    keys = data.index["key"].to_pylist()
    assert len(keys) == len(set(keys)) == VIDEOS
    names = {path.name.rpartition("-")[0] for path in tmp_path.glob("*.tar")}
    assert names == {"shard-1of2", "shard-2of2"}
    for row in range(VIDEOS):
        data.verify(row)
    (skipped,) = map(json.loads, (tmp_path / "failures.jsonl").read_text().splitlines())
    assert skipped["source"] == "3 bad.mp4"
    before = shards(tmp_path)
    assert prepare(library, tmp_path)["videos"] == VIDEOS  # and a run of its own finds all done
    assert shards(tmp_path) == before


def test_a_second_run_in_the_same_folder_is_refused(library: Path, tmp_path: Path) -> None:
    with Journal(tmp_path, None).locked():
        for task in ((), ("--task", "1/2")):
            second = start(library, tmp_path, *task)
            words = " ".join(second.communicate()[1].split())
            assert second.returncode == 1
            assert "another `vatt prepare` is at work there" in words
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


@pytest.mark.slow
def test_a_ray_cluster_stores_the_same_bytes(
    library: Path, uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    result = prepare(library, tmp_path, "--executor", "ray")
    assert (result["videos"], result["skipped"]) == (VIDEOS, {"unreadable": 1})
    assert_whole(tmp_path)
    assert shards(tmp_path) == uninterrupted
