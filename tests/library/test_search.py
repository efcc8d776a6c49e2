"""Searching: queries of several parts, what is said about them, results in every form."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.library.small_index import manifest, write_small_index
from vatt.errors import ConfigError, DataError
from vatt.library.query import QueryPart, parse_part
from vatt.library.search import Library, by_video, exported
from vatt.library.vector_index import Index

pytest.importorskip("lancedb", reason='needs the extra "search"')

PEER = "tests.library.peer_encoder:make"


def library_of(index: Index) -> Library:
    named = replace(index.manifest, model=PEER, model_hash="peer")
    return Library(Index(index.place, named), encoder=PEER, device="cpu")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return library_of(write_small_index(tmp_path_factory.mktemp("search") / "index"))


def test_words_find_the_windows_nearest_to_them(library):
    found = library.search("green door", top=4, group_by="clip")
    (vector,) = library.encoder.encoder.encode_text(["green door"]).vt.numpy()
    windows, rows = library.all_vectors("vt")
    best = windows[int(np.argmax(rows @ vector))]
    hit = found.data[0]
    assert (hit.window_id, hit.video_id) == (best.window_id, best.file_id)
    assert hit.score == pytest.approx(float((rows @ vector).max()), abs=1e-5)
    assert hit.start <= best.start_s
    assert hit.end >= best.end_s
    assert found.search_pool.total_count == 3
    assert hit.thumbnail.startswith(f"/strips/{hit.video_id}/")


def test_files_with_their_moments_are_the_same_moments(library):
    clips = library.search("green door", top=6, group_by="clip").data
    videos = library.search("green door", top=6, group_by="video").data
    assert [one.video_id for one in videos] == list(dict.fromkeys(c.video_id for c in clips))
    inside = sorted((m.score, m.start, m.end) for video in videos for m in video.clips)
    assert inside == sorted((c.score, c.start, c.end) for c in clips)
    assert by_video(clips) == videos


def test_more_like_this_finds_the_window_itself_and_avoiding_it_does_not(library):
    window = library.windows(library.files()[0].file_id)[4]
    like = [QueryPart(kind="seen", value=window.window_id)]
    assert library.search(like, group_by="clip").data[0].window_id == window.window_id
    found = library.search([*parts("green door"), replace(like[0], weight=-50)], group_by="clip")
    assert found.data[0].window_id != window.window_id
    heard = [QueryPart(kind="heard", value=window.window_id)]
    assert all(not hit.file.endswith("1.mp4") for hit in library.search(heard).data)  # silent


def test_where_nothing_can_be_compared_the_answer_says_what_is_lacking(library):
    window = library.windows(library.files()[0].file_id)[0]
    silent = next(one for one in library.files() if not one.has_audio)
    heard = [QueryPart(kind="heard", value=window.window_id)]
    found = library.search(heard, within=silent.file_id)
    assert (list(found.data), list(found.notes)) == (
        [],
        ["nothing here has audio to compare that with"],
    )


def parts(*words: str) -> list[QueryPart]:
    return [parse_part("words", one) for one in words]


def test_unknown_words_are_said_and_a_query_of_them_alone_is_an_error(library):
    (note,) = library.search("green blorb").notes
    assert "does not know 50%" in note
    with pytest.raises(ConfigError, match="knows none of these words"):
        library.search("blorb")
    with pytest.raises(ConfigError, match="nothing to search for"):
        library.search([parse_part("words", "green", sign=-1)])


def test_weights_count_the_same_whatever_the_spread_of_cosines(library):
    """Words twice with half the weight are the words once."""
    once = library.search(parts("door", "lamp"), group_by="clip").data
    halves = library.search(parts("door^0.5", "lamp", "door^0.5"), group_by="clip").data
    assert [hit.window_id for hit in halves] == [hit.window_id for hit in once]
    only = library.search(parts("door", "lamp^0"), group_by="clip").data
    assert only[0].window_id == library.search("door", group_by="clip").data[0].window_id


@pytest.mark.parametrize(
    ("given", "value", "weight", "at_s"),
    [
        ("a.mp4", "a.mp4", 1.0, None),
        ("a.mp4@12.5", "a.mp4", 1.0, 12.5),
        ("a.mp4@3^0.5", "a.mp4", 0.5, 3.0),
        ("me@home/a.mp4@3", "me@home/a.mp4", 1.0, 3.0),
    ],
)
def test_parts_are_written_with_weights_and_seconds(given, value, weight, at_s):
    expected = QueryPart(kind="video", value=value, weight=weight, at_s=at_s)
    assert parse_part("video", given) == expected


@pytest.mark.parametrize("given", ["a^x", "a^-1", "a^nan", "^2", "", " "])
def test_parts_without_sense_are_refused(given):
    with pytest.raises(ConfigError):
        parse_part("words", given)


def test_within_takes_paths_names_and_patterns(library):
    for within in ("/films/film-1.mp4", "film-1.mp4", "*-1.*", ["*-1*", "*-9*"]):
        found = library.search("green door", within=within)
        assert {hit.file for hit in found.data} == {"/films/film-1.mp4"}
        assert found.search_pool.total_count == 1
    with pytest.raises(ConfigError, match="found no file of the index"):
        library.search("green door", within="*.avi")


def test_another_model_than_the_index_was_made_with_is_refused(library):
    other = Library(Index(library.place, replace(manifest(), model=PEER)), encoder=PEER)
    with pytest.raises(DataError, match="was made with the model"):
        other.search("green door")


def in_frames(time_code: str) -> int:
    hours, minutes, seconds, frames = map(int, time_code.split(":"))
    return ((hours * 60 + minutes) * 60 + seconds) * 25 + frames


def test_exports_hold_every_moment_once(library):
    hits = library.search("green door", top=5, group_by="clip").data
    odd = [replace(hits[0], file="/films/two\nlines, and a comma.mp4", caption='say "hi",\nyou')]
    m3u, edl = exported(hits, ".m3u").splitlines(), exported(hits, ".edl").splitlines()
    assert m3u[0] == "#EXTM3U"
    assert [line for line in m3u if not line.startswith("#")] == [hit.file for hit in hits]
    assert sum(line.endswith(tuple("0123456789")) and "AA/V" in line for line in edl) == len(hits)
    events = [[in_frames(code) for code in line.split()[-4:]] for line in edl if "AA/V" in line]
    for hit, (first, last, begins, ends) in zip(hits, events, strict=True):
        assert (first, last) == (round(hit.start * 25), round(hit.end * 25))
        assert last - first == ends - begins
    assert [one[3] for one in events[:-1]] == [one[2] for one in events[1:]]
    table = exported(hits + odd, ".csv").splitlines()
    assert len(table) > len(hits) + 1
    assert sum("*" in line for line in exported(odd, ".edl").splitlines()) == 3
    two_lines = exported(odd, ".m3u").splitlines()
    assert [x for x in two_lines if not x.startswith("#")] == [
        "file:///films/two%0Alines%2C%20and%20a%20comma.mp4"
    ]


def test_the_command_prints_the_shape_of_services_and_writes_play_lists(
    library, tmp_path, monkeypatch, capsys
):
    from vatt.cli.main import main
    from vatt.tasks import search as task

    monkeypatch.setattr(task, "open_index", lambda *_, **__: library)
    out = tmp_path / "hits.m3u"
    line = ["search", "x", "green blorb", "--not", "lamp", "--top", "3", "--out", str(out)]
    assert main([*line, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["search_pool"]["total_count"] == 3
    hit = found["data"][0]
    assert {"score", "start", "end", "video_id", "file", "thumbnail", "clips"} <= set(hit)
    assert out.read_text("utf-8").startswith("#EXTM3U")
    assert main(line) == 0
    assert "caption there" in capsys.readouterr().out
    assert main(["search", "x"]) == 2
    assert Path("x").exists() is False
