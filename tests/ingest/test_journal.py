from __future__ import annotations

from pathlib import Path

import pytest

from tests.shards.test_shards import content, record
from vatt.errors import ConfigError
from vatt.ingest.journal import BusyError, Journal, Share
from vatt.ingest.sources import Item, Skipped
from vatt.shards.write import ShardWriter

BAD = Skipped(source="bad.mp4", cause="unreadable", reason="bad.mp4: cannot be opened")


def write_shard(folder: Path, *numbers: int) -> ShardWriter:
    with ShardWriter(folder / "shard-000000.tar") as shard:
        for number in numbers:
            shard.add(record(number), content(number))
    return shard


def test_every_item_is_of_one_share() -> None:
    items = [Item(path=Path(), name=f"{number}.mp4", split="train") for number in range(50)]
    shares = [Share.parse(f"{number}/3") for number in (1, 2, 3)]
    assert [sum(share.takes(item) for share in shares) for item in items] == [1] * 50
    assert [str(Share.parse(text)) for text in ("3/16", "1/1")] == ["03of16", "1of1"]
    for text in ("0/3", "4/3", "1", "1/0", "a/b"):
        with pytest.raises(ConfigError, match="task: found"):
            Share.parse(text)


def test_what_is_written_down_is_read_back_and_half_a_line_is_passed_over(tmp_path: Path) -> None:
    shard = write_shard(tmp_path, 0, 1)
    journal = Journal(tmp_path, None)
    journal.add_shard(shard.path.name, shard.rows)
    with (tmp_path / "journal.jsonl").open("ab") as file:
        file.write(b'{"failure": {"sou')  # as a killed run leaves it
    journal.add_skipped(BAD)
    stored = journal.stored()
    assert stored.table["key"].to_pylist() == ["clip-0", "clip-1"]
    assert stored.skipped == [BAD]


def test_a_shard_that_no_journal_knows_or_that_has_changed_is_read(tmp_path: Path) -> None:
    both = write_shard(tmp_path, 0, 20)
    journal = Journal(tmp_path, None)
    assert journal.stored().table["key"].to_pylist() == ["clip-0", "clip-20"]
    journal.add_shard(both.path.name, both.rows)
    write_shard(tmp_path, 0)  # shorter than the journal says
    assert journal.stored().table["key"].to_pylist() == ["clip-0"]


def test_a_job_is_done_when_all_of_its_shares_are(tmp_path: Path) -> None:
    first, second = (Journal(tmp_path, Share(number, 2)) for number in (1, 2))
    first.add_done()
    assert [str(one) for one in first.unfinished()] == ["2of2"]
    second.add_done()
    second.add_skipped(BAD)  # at work again
    assert [str(one) for one in first.unfinished()] == ["2of2"]
    second.add_done()
    assert first.unfinished() == []
    first.forget()
    assert first.unfinished() == []
    assert first.stored().skipped == []


def test_shares_are_at_work_together_and_anything_else_alone(tmp_path: Path) -> None:
    first, second = (Journal(tmp_path, Share(number, 2)) for number in (1, 2))
    with first.locked():
        with second.locked():
            pass
        for other in (Journal(tmp_path, None).locked(), second.locked(alone=True), first.locked()):
            with pytest.raises(BusyError, match="another `vatt prepare` is at work"):
                other.__enter__()
    with second.locked(alone=True):
        pass
