"""A library becomes an index: the clips of `vatt.load`, kept up to date, whole whatever happens."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
import torch

import vatt
from tests.e2e.tiny_clips import write_video
from vatt.cli.main import main
from vatt.contracts import Batch
from vatt.data.augment import apply
from vatt.data.file_clips import CLIPS_OF_FILE, spread_frames, spread_waveforms
from vatt.errors import ConfigError
from vatt.library.library_files import find_library
from vatt.library.vector_index import COLUMNS
from vatt.library.windows import FileFacts, Piece, Reading, read_windows, window_places
from vatt.media.media_file import open_media
from vatt.tasks.embed import EmbedConfig, run
from vatt.workers.process import TimeLimit

pytest.importorskip("lancedb", reason='needs the extra "search"')
FILM = [("left", "low", "red"), ("right", "high", "blue")]


def test_windows_are_the_clips_of_vatt_load(tiny, monkeypatch):
    """Four windows at the places where `vatt.load` takes its four clips: bit by bit the same."""
    monkeypatch.setattr("vatt.library.windows.PIECE_FRAMES", 5)
    model, path = vatt.load(tiny.run, "cpu"), next(iter(sorted(tiny.clips.rglob("*.mp4"))))
    with open_media(path) as media:
        room_s = media.facts.duration_s - model.spec.duration_s
        frames = spread_frames(media, model.spec, model.frame_path, torch.device("cpu"))
        waveforms = spread_waveforms(media, model.spec)
        assert waveforms is not None
    for decode in (model.frame_path, type(model.frame_path)()):
        with open_media(path) as media:
            frames = spread_frames(media, model.spec, decode, torch.device("cpu"))
        reading = Reading(spec=model.spec, path=decode, every_s=room_s / (CLIPS_OF_FILE - 1))
        given = list(read_windows(find_library([path]).files[0], TimeLimit(), reading))
        assert isinstance(given[0], FileFacts)
        pieces = [one for one in given if isinstance(one, Piece)]
        assert len(pieces) > 1  # frames are shared between pieces
        parts = [
            apply(Batch.collate([clip]), spec, antialias=decode.antialias).frames[0]
            for clip, spec in (piece.frames for piece in pieces if piece.frames)
        ]
        windows = [one for piece in pieces for one in piece.windows]
        found = torch.stack([torch.cat(parts)[one.frames] for one in windows])
        assert len(windows) == CLIPS_OF_FILE
        torch.testing.assert_close(found, frames, rtol=0, atol=1e-5)
        assert np.array_equal(np.array([one.waveform for one in windows]), waveforms)
        assert windows[0].caption.startswith("it moves")


def test_windows_cover_a_file_to_its_end_and_a_short_one_once(tiny):
    spec = vatt.load(tiny.run, "cpu").spec
    clip_s = spec.duration_s
    places = window_places([(0.0, 3.3 * clip_s), (10.0, 10.0 + clip_s / 3)], spec, clip_s / 2)
    starts = np.array([start_s for start_s, _ in places[:-1]]) / clip_s
    assert starts == pytest.approx([0, 0.5, 1, 1.5, 2, 2.3])
    assert places[-1] == (10.0, 10.0 + clip_s / 3)


@pytest.fixture
def library(tmp_path):
    """Two films, one without audio, one of audio alone, one broken, one empty, one cut off."""
    folder = tmp_path / "films"
    folder.mkdir()
    for name, film in (("a", FILM), ("b", FILM[::-1])):
        write_video(folder / f"{name}.mp4", film)
    (folder / "a.srt").write_text("1\n00:00:00,000 --> 00:00:01,500\na red ground\n")
    for name, kind in (("silent.mp4", "video"), ("sound.m4a", "audio")):
        with av.open(str(folder / "a.mp4")) as source, av.open(
            str(folder / name), "w", format="mp4"
        ) as out:  # fmt: skip
            stream = next(iter(getattr(source.streams, kind)))
            copy = out.add_stream_from_template(stream)
            for packet in source.demux(stream):
                if packet.dts is not None:
                    packet.stream = copy
                    out.mux(packet)
    (folder / "broken.mp4").write_bytes(b"\0" * 5000)
    (folder / "empty.mp4").touch()
    return folder


def embed(library, tiny, /, **settings):
    out = str(library.parent / "index")
    values = {"library": (library,), "model": tiny.run, "out": out, "workers": 1}
    values |= {"max_bad_fraction": 1.0, "device": "cpu"}
    return run(EmbedConfig(**values | settings))


def test_an_index_follows_its_library(library, tiny):
    """Embedded once; then a file more, one changed, one moved, one gone, one twice, one touched."""
    first = embed(library, tiny)
    assert (first.files, first.embedded, first.skipped) == (4, 4, {"unreadable": 2})
    index = vatt.open_index(library.parent / "index")
    by_name = {Path(one.path).name: one for one in index.files()}
    windows = {name: index.windows(one.file_id) for name, one in by_name.items()}
    assert windows["a.mp4"][0].caption == "a red ground"
    assert not any(one.has_audio for one in windows["silent.mp4"])
    ids = [one.window_id for one in windows["sound.m4a"]]
    assert index.vectors(ids, "vt") == [None] * len(ids)
    assert all(vector is not None for vector in index.vectors(ids, "audio_va"))
    model = vatt.load(tiny.run, "cpu")
    assert index.manifest.clip_s == pytest.approx(model.spec.duration_s)
    assert index.manifest.every_s == pytest.approx(model.spec.duration_s / 2)

    again = embed(library, tiny)
    assert (again.embedded, again.files, again.skipped) == (0, 4, first.skipped)

    write_video(library / "new.mp4", FILM + FILM)
    write_video(library / "b.mp4", FILM + FILM[:1])
    shutil.copy(library / "new.mp4", library / "twice.mp4")
    (library / "sound.m4a").rename(library / "moved.m4a")
    (library / "silent.mp4").unlink()
    os.utime(library / "a.mp4", ns=(1, 1))
    (library / "a.srt").write_text("1\n00:00:00,000 --> 00:00:01,500\na green ground\n")
    later = embed(library, tiny)
    assert (later.new, later.changed, later.gone, later.moved) == (1, 2, 1, 1)
    assert (later.embedded, later.duplicates, later.files) == (3, 1, 4)
    index = vatt.open_index(library.parent / "index")
    assert [Path(one.path).name for one in index.files()] == [
        "a.mp4", "b.mp4", "moved.m4a", "new.mp4",
    ]  # fmt: skip
    a = next(one for one in index.files() if one.path.endswith("a.mp4"))
    assert index.windows(a.file_id)[0].caption == "a green ground"
    names = [one.window_id for file in index.files() for one in index.windows(file.file_id)]
    assert len(names) == len(set(names)) == index.num_windows == later.windows
    failures = (library.parent / "index/failures.jsonl").read_text().splitlines()
    causes = [json.loads(line)["cause"] for line in failures]
    assert sorted(causes) == ["duplicate", "unreadable", "unreadable"]
    with pytest.raises(ConfigError, match=r"found every_s 0\.2, expected"):
        embed(library, tiny, every=0.2)


def test_audio_in_folders_is_found_for_encoders_that_take_it_and_is_always_taken_by_name(library):
    sound = str(library / "sound.m4a")
    assert sound in {one.path for one in find_library([library]).files}
    assert sound not in {one.path for one in find_library([library], audio=False).files}
    assert [one.path for one in find_library([Path(sound)], audio=False).files] == [sound]


def test_files_whose_name_or_folder_is_not_text_are_skipped_by_name(tmp_path):
    odd = tmp_path / os.fsdecode(b"caf\xe9")
    odd.mkdir()
    (odd / "a.mp4").touch()
    (tmp_path / "b.mp4").touch()
    found = find_library([tmp_path])
    assert [one.path for one in found.files] == [str(tmp_path / "b.mp4")]
    assert [one.cause for one in found.skipped] == ["name"]
    assert "caf\\udce9/a.mp4: its name is not UTF-8; rename it" in found.skipped[0].reason


def test_tasks_share_a_library_and_the_last_one_joins_them(library, tiny):
    listed = library.parent / "more.txt"
    listed.write_text("films/a.mp4\nabsent.mp4\n")
    (library / "notes").touch()
    both: dict = {"library": (library, listed)}
    whole = embed(library, tiny, **both)
    assert whole.skipped == {"not found": 1, "unreadable": 2}
    assert whole.other_files == {"(none)": 1}
    names = indexed(library.parent / "index")
    out = str(library.parent / "shared")
    first = embed(library, tiny, out=out, task="2/2", **both)
    assert first.unfinished_tasks == ["1of2"]
    last = embed(library, tiny, out=out, task="1/2", **both)
    assert (last.files, last.windows, last.skipped) == (whole.files, whole.windows, whole.skipped)
    assert (first.embedded + last.embedded, first.new + last.new) == (whole.files, whole.files)
    again = embed(library, tiny, out=out, task="1/2", **both)
    assert (again.files, again.embedded) == (0, 0)
    assert embed(library, tiny, out=out, task="2/2", **both).skipped == whole.skipped
    assert indexed(library.parent / "shared") == names
    exported = library.parent / "parquet"
    assert main(["index", "export", out, "--out", str(exported)]) == 0
    assert main(["index", "merge", out, str(library.parent / "index"), "--out", f"{out}-2"]) == 0
    assert indexed(library.parent / "shared-2") == names
    assert main(["index", "check", f"{out}-2"]) == 0


def indexed(folder):
    index = vatt.open_index(folder)
    return sorted(one.window_id for file in index.files() for one in index.windows(file.file_id))


def test_prepared_shards_are_a_library(tiny, tmp_path):
    found = run(EmbedConfig(library=(tiny.shards,), model=tiny.run, out=str(tmp_path / "index"),
                            workers=1, device="cpu"))  # fmt: skip
    index = vatt.open_index(tmp_path / "index")
    assert found.files == 11
    assert all("shard-000000.tar#" in one.path for one in index.files())
    assert index.windows(index.files()[0].file_id)[0].caption.startswith("it moves")


@pytest.mark.slow
def test_killed_at_random_moments_it_loses_no_window_and_doubles_none(tiny, tmp_path):
    whole = tmp_path / "whole"
    words = ["embed", str(tiny.clips), "--model", str(tiny.run), "--workers", "2"]
    began = time.monotonic()
    assert main([*words, "--out", str(whole)]) == 0
    took_s = time.monotonic() - began
    rng, killed = random.Random(0), 0
    out = tmp_path / "killed"
    for _ in range(12):
        process = subprocess.Popen(
            [sys.executable, "-m", "vatt", *words, "--out", str(out)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until = time.monotonic() + 300
        while not (out / "manifest.json").exists() and process.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.01)
        time.sleep(rng.uniform(0, took_s / 2))
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        if process.returncode == 0:
            break
    assert killed
    assert main([*words, "--out", str(out)]) == 0
    assert indexed(out) == indexed(whole)
    one, other = vatt.open_index(out), vatt.open_index(whole)
    ids = indexed(whole)
    for column in COLUMNS:
        for found, expected in zip(
            one.vectors(ids, column), other.vectors(ids, column), strict=True
        ):
            assert found is not None
            assert expected is not None
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
