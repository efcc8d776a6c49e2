"""Each kind of finding: the fault is built, exactly that is found; without it, nothing is."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.scenes import SAID, SAID_IN_GERMAN, Scene, write_scenes
from vatt.audit import check_videos as auditing
from vatt.audit.check_shards import check_index, check_shard, indexed_shards, open_index
from vatt.audit.check_videos import Checks, StoredVideo, check_video, thumbnails
from vatt.audit.duplicates import Entry, compare
from vatt.audit.findings import Finding
from vatt.audit.fingerprints import Likeness
from vatt.audit.languages import guess_language
from vatt.errors import DataError
from vatt.media.captions.clean import Caption
from vatt.shards.index import ALL_COLUMNS
from vatt.shards.layout import INDEX_FILE
from vatt.shards.read import ShardFolder
from vatt.shards.record import PartOf
from vatt.workers.process import TimeLimit

GOOD = Scene(seed=1)
# What the two parts of an index row are compared by; the others only tell people something.
CHECKED = [name for name in ALL_COLUMNS.names if name not in ("part", "parts")]


def audited(folder: Path, *, deep: bool = True) -> list[Finding]:
    """All findings about a folder, by the functions that the pool's processes run."""
    data = open_index(folder)
    findings = [*check_index(data)]
    for shard in indexed_shards(data):
        findings += check_shard(shard, TimeLimit())
    entries = []
    for row in data.index.to_pylist():
        seen = check_video(
            StoredVideo(folder=folder, row=row, info=data.info), TimeLimit(), Checks(), deep=deep
        )
        findings += seen.findings
        names = ("shard", "key", "split", "sha256")
        entries.append(
            Entry(
                folder=str(folder),
                source=seen.source,
                fingerprint=seen.fingerprint,
                **{name: row[name] for name in names},
            )
        )
    return [*findings, *compare(entries, Likeness())]


def kinds(folder: Path, *, deep: bool = True) -> list[str]:
    return [finding.kind for finding in audited(folder, deep=deep)]


def change_index(data: ShardFolder, row: int, **values: object) -> None:
    """Write other values into the index, as damage or another version of the shard would."""
    rows = pq.read_table(data.folder / INDEX_FILE).to_pylist()
    rows[row] |= values
    pq.write_table(pa.Table.from_pylist(rows, ALL_COLUMNS), data.folder / INDEX_FILE)


def overwrite(data: ShardFolder, offset: int, content: bytes, *, shard: str = "shard-000000.tar"):
    with (data.folder / shard).open("r+b") as file:
        file.seek(offset)
        file.write(content)


def test_nothing_is_found_in_clean_shards(tmp_path: Path) -> None:
    write_scenes(tmp_path, [Scene(seed=seed) for seed in range(6)], per_shard=2)
    assert audited(tmp_path) == []


STORED = {
    "uneven rate": replace(GOOD, times=[*range(19), 20]),
    "stored form": replace(GOOD, options={"bf": "0", "g": "20", "sc_threshold": "0"}),
    "silent": replace(GOOD, loudness=0.0),
    "black": replace(GOOD, brightness=0.02),
    "frozen": replace(GOOD, still=True),
    "no captions": replace(GOOD, captions=()),
    "sparse captions": replace(GOOD, captions=((1.0, 1.1, SAID),)),
    "caption times": replace(GOOD, captions=((0.0, 2.0, SAID), (2.0, 2.9, "late"))),
}


@pytest.mark.parametrize("kind", STORED)
def test_a_stored_fault_is_found_and_nothing_else(kind: str, tmp_path: Path) -> None:
    write_scenes(tmp_path, [STORED[kind], Scene(seed=2)])
    (finding,) = audited(tmp_path)
    assert (finding.kind, finding.key) == (kind, "v0")


@pytest.mark.parametrize("sound", [(0.8, 2.0), (0.0, 1.2)], ids=["starts late", "ends early"])
def test_sound_that_does_not_last_as_long_as_the_picture_is_found(sound, tmp_path: Path) -> None:
    write_scenes(tmp_path, [replace(GOOD, sound=sound)])
    assert kinds(tmp_path) == ["sound gap"]


def test_reordered_frames_break_the_promised_form_and_are_slow_where_none_is_promised(
    tmp_path: Path,
) -> None:
    data = write_scenes(tmp_path, [replace(GOOD, options={"bf": "2", "g": "10"})])
    assert kinds(tmp_path) == ["stored form"]
    row = open_index(tmp_path).index.to_pylist()[0]
    seen = check_video(
        StoredVideo(folder=tmp_path, row=row, info={**data.info, "made": {}}),
        TimeLimit(),
        Checks(),
        deep=False,
    )
    assert [finding.kind for finding in seen.findings] == ["slow to read"]


@pytest.mark.parametrize(("size", "shown"), [((48, 64), (90, 120)), ((64, 36), (90, 51))])
def test_frames_that_are_shown_have_the_aspect_of_the_video(size, shown, tmp_path: Path) -> None:
    data = write_scenes(tmp_path, [replace(GOOD, size=size, frames=5, sound=None)])
    (row,) = data.index.to_pylist()
    frames = thumbnails(StoredVideo(folder=tmp_path, row=row, info=data.info), TimeLimit())
    assert frames.shape == (5, *shown, 3)


def test_captions_in_another_language_are_told_apart() -> None:
    pytest.importorskip("py3langid")
    assert guess_language(SAID * 2) == "en"
    assert guess_language(SAID_IN_GERMAN * 2) == "de"
    assert guess_language("ok") == ""  # too short to say


def test_covered_time_counts_overlaps_once_and_only_within_the_video() -> None:
    captions = [Caption(*span, "…") for span in ((0.0, 2.0), (1.0, 3.0), (5.0, 6.0), (9.0, 12.0))]
    assert auditing.covered_s(captions, 10.0) == pytest.approx(3 + 1 + 1)


def test_a_changed_byte_of_a_video_is_a_wrong_checksum(tmp_path: Path) -> None:
    data = write_scenes(tmp_path, [GOOD, Scene(seed=2)])
    overwrite(data, int(data.column("video_offset")[1]) + 700, b"\xff\xfe")
    (finding,) = audited(tmp_path)
    assert (finding.kind, finding.key) == ("checksum", "v1")


def test_a_changed_letter_of_a_caption_is_found(tmp_path: Path) -> None:
    data = write_scenes(tmp_path, [GOOD])
    at = (tmp_path / "shard-000000.tar").read_bytes().index(b"onions")
    overwrite(data, at, b"a")
    (finding,) = audited(tmp_path)
    assert (finding.kind, finding.detail[:11]) == ("index differs", "json_sha256")


def test_a_record_that_is_no_json_is_found(tmp_path: Path) -> None:
    data = write_scenes(tmp_path, [GOOD])
    overwrite(data, int(data.column("json_offset")[0]), b"[")
    assert kinds(tmp_path) == ["bad record"]


def test_an_index_that_says_something_else_than_the_record_is_found(tmp_path: Path) -> None:
    data = write_scenes(tmp_path, [GOOD])
    change_index(data, 0, duration_s=20.0)
    (finding,) = audited(tmp_path)
    assert (finding.kind, finding.detail) == ("index differs", "duration_s: index 20.0, record 2.0")


def test_a_duration_that_the_file_does_not_have_is_found(tmp_path: Path) -> None:
    data = write_scenes(tmp_path, [GOOD])
    content = bytearray((tmp_path / "shard-000000.tar").read_bytes())
    at = content.index(b'"facts": {"duration_s": 2.0') + len('"facts": {"duration_s": ')
    content[at : at + 3] = b"9.0"
    (tmp_path / "shard-000000.tar").write_bytes(content)
    found = [(one.kind, one.detail.partition(":")[0]) for one in audited(tmp_path)]
    assert ("wrong duration", "the picture ends at 2.00 s, the index says 9.00 s") in found
    assert ("index differs", "json_sha256") in found
    assert data.folder == tmp_path


def test_bytes_that_are_stored_right_but_do_not_decode_are_found(tmp_path: Path) -> None:
    data = write_scenes(tmp_path, [GOOD])
    video = bytearray(data.read_video(0))
    at = video.index(b"mdat") + 400
    video[at : at + 3000] = np.random.default_rng(0).bytes(3000)
    offset, size = (int(data.column(f"video_{name}")[0]) for name in ("offset", "size"))
    assert len(video) == size
    overwrite(data, offset, bytes(video))
    digest = hashlib.sha256(video).hexdigest()
    record = data.read_record_text(0).replace(data.column("sha256")[0].encode(), digest.encode())
    overwrite(data, int(data.column("json_offset")[0]), record)
    change_index(data, 0, sha256=digest, json_sha256=hashlib.sha256(record).hexdigest())
    assert kinds(tmp_path) == ["undecodable"]


@pytest.mark.parametrize("deep", [False, True])
def test_only_a_deep_look_decodes_between_the_moments(deep: bool, tmp_path: Path) -> None:
    data = write_scenes(tmp_path, [replace(GOOD, frames=60, sound=(0.0, 6.0))])
    row = open_index(tmp_path).index.to_pylist()[0]
    seen = check_video(
        StoredVideo(folder=tmp_path, row=row, info=data.info), TimeLimit(), Checks(), deep=deep
    )
    assert seen.decoded == auditing.NUM_FRAMES + (60 if deep else 0)


def test_a_missing_shard_is_found_once_and_its_videos_are_cut_off(tmp_path: Path) -> None:
    write_scenes(tmp_path, [GOOD, Scene(seed=2)], per_shard=1)
    (tmp_path / "shard-000001.tar").unlink()
    found = audited(tmp_path)
    assert [(one.kind, one.shard) for one in found] == [
        ("missing shard", "shard-000001.tar"),
        ("cut off", "shard-000001.tar"),
    ]


def test_a_cut_shard_is_damaged_and_what_is_whole_in_it_stays_good(tmp_path: Path) -> None:
    data = write_scenes(tmp_path, [GOOD, Scene(seed=2), Scene(seed=3)])
    path = tmp_path / "shard-000000.tar"
    path.write_bytes(path.read_bytes()[: int(data.column("video_offset")[1]) + 100])
    assert [(one.kind, one.key) for one in audited(tmp_path)] == [
        ("damaged tar", ""),
        ("cut off", "v1"),
        ("cut off", "v2"),
    ]


def test_a_destroyed_header_is_damage_although_all_bytes_are_there(tmp_path: Path) -> None:
    data = write_scenes(tmp_path, [GOOD, Scene(seed=2)])
    overwrite(data, int(data.column("video_offset")[1]) - 500, b"?")
    assert kinds(tmp_path) == ["damaged tar"]


def test_rows_that_point_to_something_else_are_found(tmp_path: Path) -> None:
    data = write_scenes(tmp_path, [GOOD, Scene(seed=2)])
    change_index(data, 0, key="v9")
    found = audited(tmp_path)
    assert [one.kind for one in found] == ["wrong place", "wrong place", "index differs"]
    assert "found v0.mp4" in found[0].detail


def test_shards_and_members_that_the_index_does_not_know_are_found(tmp_path: Path) -> None:
    data = write_scenes(tmp_path, [GOOD, Scene(seed=2), Scene(seed=3)], per_shard=2)
    rows = pq.read_table(tmp_path / INDEX_FILE)
    pq.write_table(rows.slice(0, 1), data.folder / INDEX_FILE)
    found = [(one.kind, one.shard, one.key) for one in audited(tmp_path)]
    assert (
        found[:-3] == [("index differs", "", "")] * 5
    )  # dataset.json counts two shards, three videos …
    assert found[-3:] == [
        ("not in the index", "shard-000000.tar", "v1"),
        ("not in the index", "shard-000000.tar", "v1"),
        ("not in the index", "shard-000001.tar", ""),
    ]


def test_links_and_unsafe_names_in_a_shard_are_found(tmp_path: Path) -> None:
    write_scenes(tmp_path, [GOOD])
    with tarfile.open(tmp_path / "shard-000000.tar", "a") as tar:
        link = tarfile.TarInfo("x.mp4")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        tar.addfile(tarfile.TarInfo("../y.mp4"), io.BytesIO())
    assert kinds(tmp_path) == ["strange member", "strange member"]


def test_a_key_that_two_rows_have_is_found(tmp_path: Path) -> None:
    data = write_scenes(tmp_path, [GOOD, Scene(seed=2)])
    change_index(data, 1, key="v0")
    assert kinds(tmp_path)[0] == "same key twice"


def test_an_index_with_holes_is_refused(tmp_path: Path) -> None:
    data = write_scenes(tmp_path, [GOOD])
    change_index(data, 0, shard=None)
    with pytest.raises(DataError, match="1 rows without shard"):
        open_index(tmp_path)


def test_equal_files_are_one_finding_and_a_leak_when_their_splits_differ(tmp_path: Path) -> None:
    write_scenes(tmp_path / "a", [GOOD, GOOD, Scene(seed=2)])
    (finding,) = audited(tmp_path / "a")
    assert (finding.kind, finding.others) == ("same content", ((str(tmp_path / "a"), "v1"),))
    write_scenes(tmp_path / "b", [GOOD, replace(GOOD, split="test"), Scene(seed=2)])
    assert kinds(tmp_path / "b") == ["leak: same content"]


def test_the_same_scene_encoded_otherwise_is_a_near_duplicate(tmp_path: Path) -> None:
    small = replace(GOOD, size=(36, 48), loudness=0.5, options={"bf": "0", "g": "5", "crf": "30"})
    others = [Scene(seed=seed) for seed in range(2, 8)]
    write_scenes(tmp_path / "a", [GOOD, *others, small])
    (finding,) = audited(tmp_path / "a")
    assert (finding.kind, finding.key, finding.others[0][1]) == ("near-duplicate", "v0", "v7")
    write_scenes(tmp_path / "b", [GOOD, *others, replace(small, split="test")])
    assert kinds(tmp_path / "b") == ["leak: near-duplicate"]


def test_the_same_picture_with_other_words_is_no_duplicate(tmp_path: Path) -> None:
    """Two lectures over the same slide."""
    data = write_scenes(tmp_path, [GOOD, Scene(seed=2)])
    rows = open_index(tmp_path).index.to_pylist()
    one, two = (
        check_video(
            StoredVideo(folder=tmp_path, row=row, info=data.info), TimeLimit(), Checks(), deep=False
        ).fingerprint
        for row in rows
    )
    assert one is not None
    assert two is not None
    other_sound = replace(one, audio=two.audio)
    entries = [
        Entry(folder="", shard="", key=key, split="train", source="", sha256=key, fingerprint=found)
        for key, found in (("a", one), ("b", other_sound), ("c", replace(one, audio=None)))
    ]
    assert [one.kind for one in compare(entries[:2], Likeness())] == []
    assert [one.kind for one in compare(entries[::2], Likeness())] == ["near-duplicate"]


def test_parts_of_one_source_leak_only_between_splits(tmp_path: Path) -> None:
    def parts(*splits: str) -> list[Scene]:
        return [
            Scene(
                seed=number,
                split=split,
                source="talk.mp4",
                part=PartOf(index=number, count=2, start_s=2.0 * number, end_s=2.0 * number + 2),
            )
            for number, split in enumerate(splits)
        ]

    write_scenes(tmp_path / "a", parts("train", "train"))
    assert kinds(tmp_path / "a") == []
    write_scenes(tmp_path / "b", parts("train", "test"))
    assert kinds(tmp_path / "b") == ["leak: same source"]


def _mutated(rng: np.random.Generator, content: bytes, headers: list[int]) -> bytes:
    """Cut, or with one bit flipped: anywhere, or in the header of a member."""
    kind = rng.integers(5)
    if kind == 0:
        return content[: rng.integers(len(content))]
    changed = np.frombuffer(content, np.uint8).copy()
    anywhere = rng.integers(len(changed))
    place = anywhere if kind < 3 else rng.choice(headers) + rng.integers(512)
    changed[place % len(changed)] ^= 1 << rng.integers(8)
    return changed.tobytes()


@pytest.mark.parametrize("count", [40, pytest.param(400, marks=pytest.mark.slow)])
def test_every_mutation_of_a_shard_is_found_or_provably_harmless(
    count: int, tmp_path: Path
) -> None:
    data = write_scenes(tmp_path, [replace(GOOD, frames=5, sound=(0.0, 0.5), size=(16, 32))] * 2)
    path = tmp_path / "shard-000000.tar"
    content = path.read_bytes()
    stored = [(data.read_video(row), data.read_record_text(row)) for row in range(2)]
    headers = [
        int(data.column(f"{part}_offset")[row]) - 512
        for part in ("video", "json")
        for row in (0, 1)
    ]
    clean = kinds(tmp_path, deep=False)
    rng = np.random.default_rng(count)
    harmless = 0
    for _ in range(count):
        path.write_bytes(_mutated(rng, content, headers))
        found = kinds(tmp_path, deep=False)
        if found == clean:
            now = [(data.read_video(row), data.read_record_text(row)) for row in range(2)]
            assert now == stored
            harmless += 1
    assert harmless < count / 2  # padding between members, and after the last one


@pytest.mark.parametrize("name", ["index.parquet", "dataset.json"])
@pytest.mark.parametrize("count", [40, pytest.param(400, marks=pytest.mark.slow)])
def test_every_mutation_of_the_index_is_found_or_changes_nothing(
    name: str, count: int, tmp_path: Path
) -> None:
    write_scenes(tmp_path, [replace(GOOD, frames=5, sound=(0.0, 0.5), size=(16, 32))] * 2)
    path = tmp_path / name
    content = path.read_bytes()
    table, info = open_index(tmp_path).index, json.loads((tmp_path / "dataset.json").read_bytes())
    clean = kinds(tmp_path, deep=False)
    rng = np.random.default_rng(count)
    for _ in range(count):
        path.write_bytes(_mutated(rng, content, [0, len(content) - 512]))
        try:
            if kinds(tmp_path, deep=False) == clean:
                assert open_index(tmp_path).index.select(CHECKED).equals(table.select(CHECKED))
        except DataError:
            continue
    assert info["videos"] == 2


def test_a_record_with_words_where_numbers_belong_is_found(tmp_path: Path) -> None:
    data = write_scenes(tmp_path, [GOOD])
    record = data.read_record_text(0)
    said = json.loads(record)
    said["facts"]["duration_s"], said["captions"] = "2.00", [{"start_s": [], "end_s": 1, "text": 0}]
    changed = json.dumps(said).encode().ljust(len(record))
    assert len(changed) == len(record)
    overwrite(data, int(data.column("json_offset")[0]), changed)
    change_index(data, 0, json_sha256=None)
    path = tmp_path / "dataset.json"  # as version 1.0 wrote it
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": "1.0"}))
    assert kinds(tmp_path)[-1] == "bad record"
