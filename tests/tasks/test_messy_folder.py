"""`vatt prepare` on a folder as users have them: its summary is right to the file."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.tasks.messy_folder import NAMES, Messy, write_messy_folder
from vatt.cli.main import main
from vatt.shards.read import ShardFolder


@pytest.fixture(scope="module")
def messy(tmp_path_factory: pytest.TempPathFactory) -> Messy:
    return write_messy_folder(tmp_path_factory.mktemp("messy") / "Holiday videos")


def prepare(messy: Messy, out: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict]:
    words = ["prepare", str(messy.folder), "--out", str(out), "--part_minutes", "0.05"]
    capsys.readouterr()
    code = main([*words, "--workers", "2", "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_the_summary_of_a_messy_folder_is_right_to_the_file(
    messy: Messy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, result = prepare(messy, tmp_path, capsys)
    skipped = list(map(json.loads, (tmp_path / "failures.jsonl").read_text().splitlines()))
    said = {line["source"]: (line["cause"], line["reason"]) for line in skipped}
    assert result["skipped"] == messy.skipped, said
    assert code == 1  # more than a tenth were bad
    for name in ("duplicates", "caption_files", "other_files", "lone_captions", "missing"):
        assert result[name] == getattr(messy, name), name
    assert result["captions"] == {"file, en": 1, "file, language unknown": 3}
    assert (result["videos"], result["parts"]) == (messy.stored, messy.parts)
    bad = sum(messy.skipped.values())
    assert result["sources"] == messy.stored + messy.duplicates + bad
    assert messy.stored >= 40
    assert bad >= 15
    causes = Counter(line["cause"] for line in skipped)
    assert causes == Counter(messy.skipped) + Counter(duplicate=messy.duplicates)

    data = ShardFolder.open(tmp_path)
    records = [data.read_record(row) for row in range(len(data))]
    assert {f"names/{name}" for name in NAMES} < {record.source for record in records}
    lecture = [one for one in records if one.source == "odd/long lecture.mp4"]
    assert [one.part.index for one in lecture if one.part] == [0, 1, 2]
    assert [[c.text for c in one.captions] for one in lecture] == [
        ["good morning"], [], ["good bye"],
    ]  # fmt: skip
    (two_lines,) = [one for one in records if one.source == "names/new\nline.mp4"]
    assert [caption.text for caption in two_lines.captions] == ["on two lines"]
    for row in range(len(data)):
        data.verify(row)


@pytest.mark.slow
def test_a_second_time_there_is_nothing_to_do(
    messy: Messy,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, first = prepare(messy, tmp_path, capsys)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.tar")}
    for work in ("vatt.ingest.item.prepare_item", "vatt.shards.read.read_shard"):
        monkeypatch.setattr(work, None)  # neither is called
    _, again = prepare(messy, tmp_path, capsys)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.tar")} == before
    for result in (first, again):
        del result["seconds"], result["rate"]
    assert again == first
