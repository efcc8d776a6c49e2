from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.data.small_shards import Video, write_shards
from vatt.cli.main import main
from vatt.media.planes import PlaneCopier

SIZES = ["--clip.frames", "4", "--clip.fps", "5", "--clip.height", "24", "--clip.width", "32"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench") / "shards"
    write_shards(folder, [Video(frames=20 + n) for n in range(3)])
    return folder


def bench(capsys: pytest.CaptureFixture[str], shards: Path, *words: str) -> dict:
    capsys.readouterr()
    command = ["bench", "loader", str(shards), *SIZES, "--clip.sample_rate_hz", "8000"]
    assert main([*command, "--clips", "16", "--data.workers", "0", "--json", *words]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("decode", ["planes", "rgb"])
def test_stages_add_up_to_what_a_core_reads_and_say_how_many_it_takes(
    decode: str, shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = PlaneCopier.copy
    result = bench(capsys, shards, "--data.decode", decode, "--accelerator_clips_per_s", "1e6")
    assert PlaneCopier.copy is copy  # what was measured is as before
    stages = result["milliseconds"]
    assert set(stages) == {"read", "decode", "sound", "convert", "collate"}
    assert all(value > 0 for value in stages.values())
    per_core = result["clips_per_s_per_core"]
    assert per_core == pytest.approx(1000 / sum(stages.values()))
    assert result["cores"] - 1 < 1e6 / per_core <= result["cores"]
    assert (result["clips"], result["failed"], result["workers"]) == (16, 0, 0)
    assert result["clips_per_s"] > 0


@pytest.mark.slow  # fills a cache
def test_a_cache_is_measured(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = bench(capsys, shards)
    cached = bench(capsys, shards, "--data.cache", "memory", "--data.batch_size", "3")
    assert plain["milliseconds"]["sound"] > 0 == cached["milliseconds"]["sound"]


def test_settings_of_data_have_an_effect_or_are_none(
    shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["bench", "loader", str(shards), "--data.shards", "elsewhere"])
    assert "Unrecognized options: --data.shards" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["bench", "loader", "--help"])
    assert "--data.shards" not in capsys.readouterr().out


def test_a_bench_that_cannot_be_is_refused(
    shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "loader", str(shards), "--clips", "2"]) == 2
    assert "clips: found 2, expected >= 8" in capsys.readouterr().err
    assert main(["bench", "loader", str(shards.parent / "nothing")]) == 1
    assert "nothing" in capsys.readouterr().err
