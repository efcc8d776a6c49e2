"""The index: what is written is found again, exactly and by candidates."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest

from tests.library.small_index import entry, manifest, windows_of, write_small_index
from vatt.errors import ConfigError, DataError
from vatt.library.index_place import IndexPlace
from vatt.library.index_writer import index_writer
from vatt.library.vector_index import Term, open_index

pytest.importorskip("lancedb", reason='needs the extra "search"')


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write_small_index(tmp_path_factory.mktemp("index") / "index").place.folder


def test_scores_are_sums_of_cosines_and_absent_vectors_are_no_hits(small):
    index = open_index(small)
    windows, vt = index.all_vectors("vt")
    sounds, audio = index.all_vectors("audio_va")
    assert len(windows) == len(sounds) == 20
    terms = [Term(vt[3], "vt"), Term(audio[0], "audio_va", -0.5)]
    found = index.scores(terms)
    assert len(found) == 20
    heard = dict(zip([one.window_id for one in sounds], audio, strict=True))
    of = dict(zip([one.window_id for one in windows], vt, strict=True))
    for window, score in found:
        other = heard.get(window.window_id, np.zeros(16)) @ audio[0]
        assert score == pytest.approx(of[window.window_id] @ vt[3] - 0.5 * other, abs=1e-6)
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)
    assert index.scores([Term(vt[3], "vt")])[0][0] == windows[3]
    only = index.files()[1].file_id
    assert {one.file_id for one, _ in index.scores([Term(vt[3], "vt")], within=[only])} == {only}
    with pytest.raises(DataError, match="found a query of 4 numbers for 'vt', expected 16"):
        index.scores([Term(vt[3][:4], "vt")])


def test_a_small_index_opens_without_lancedb_and_equals_its_tables(small, tmp_path, monkeypatch):
    copy = shutil.copytree(small, tmp_path / "copy")
    (copy / "snapshot.arrow").unlink()
    slow = open_index(copy)
    rows = [(one, slow.windows(one.file_id)) for one in slow.files()]
    vectors = slow.all_vectors("va")[1]
    monkeypatch.setitem(sys.modules, "lancedb", None)
    quick = open_index(small)
    assert [(one, quick.windows(one.file_id)) for one in quick.files()] == rows
    assert np.array_equal(quick.all_vectors("va")[1], vectors)
    assert quick.window(rows[0][1][3].window_id) == rows[0][1][3]


def test_windows_of_files_that_are_not_whole_do_not_count_and_are_removed(tmp_path):
    whole, partly = entry("/a.mp4"), entry("/b.mp4")

    def killed() -> None:
        with index_writer(IndexPlace(tmp_path), manifest()) as writer:
            writer.add(windows_of(whole), [whole])
            writer.add(windows_of(partly), [])
            raise KeyError

    with pytest.raises(KeyError):
        killed()
    index = open_index(tmp_path)
    query = index.all_vectors("vt")[1][0]
    assert {one.file_id for one, _ in index.scores([Term(query, "vt")])} == {whole.file_id}
    with index_writer(IndexPlace(tmp_path), manifest()) as writer:
        assert len(writer) == 10
        writer.add(windows_of(partly), [partly])
        writer.drop([whole.file_id])
    assert [one.path for one in open_index(tmp_path).files()] == ["/b.mp4"]
    assert json.loads((tmp_path / "manifest.json").read_text())["windows"] == 10


def test_other_models_second_writers_and_foreign_folders_are_refused(small, tmp_path):
    with (
        pytest.raises(ConfigError, match=r"found model_hash 1+, expected 0+ as in its manifest"),
        index_writer(IndexPlace(small), manifest(model_hash="1" * 64)),
    ):
        pass
    copy = shutil.copytree(small, tmp_path / "copy")
    with (
        index_writer(IndexPlace(copy), manifest()),
        pytest.raises(DataError, match="another process is writing this index"),
        index_writer(IndexPlace(copy), manifest()),
    ):
        pass
    with index_writer(IndexPlace(copy), manifest(model_hash="1" * 64), rebuild=True) as writer:
        assert not len(writer)
        assert not writer.files
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/film.mp4").touch()
    with (
        pytest.raises(ConfigError, match=r"no index, but it holds 'film\.mp4'"),
        index_writer(IndexPlace(tmp_path / "mine"), manifest()),
    ):
        pass
    with pytest.raises(DataError, match="no index here"):
        open_index(tmp_path / "mine")
