"""Real speech: seven seconds of a LibriVox recording (public domain) of Sense and Sensibility."""

from __future__ import annotations

import os
from pathlib import Path

import av
import numpy as np
import pytest

from tests.media.clips import Recipe, write
from tests.media.reading import find_captions, transcribe
from vatt.cli.main import main
from vatt.media.captions.choose import CaptionChoice
from vatt.shards.read import ShardFolder

SPEECH = Path(__file__).parent / "data" / "speech.flac"
SAID = (
    "and mister john dashwood had then leisure to consider how much there might be prudently in "
    "his power to do for them"
)
JOHN_S, POWER_S = 0.63, 5.75  # when these words begin, by an aligner

WHISPER = os.environ.get("VATT_WHISPER", "")  # the folder of a model
needs_whisper = pytest.mark.skipif(not WHISPER, reason="VATT_WHISPER names no Whisper model")
pytest.importorskip("pocketsphinx", reason='speech to text needs pip install "vatt[asr]"')


def longer(path: Path, *, silence_s: float, times: int) -> Path:
    """The speech several times, each after a silence."""
    with av.open(str(SPEECH)) as container:
        once = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])
    quiet = np.random.default_rng(0).normal(0, 8, round(16_000 * silence_s)).astype(np.int16)
    waveform = np.concatenate([part for _ in range(times) for part in (quiet, once)])
    with av.open(str(path), "w") as output:
        stream = output.add_stream("pcm_s16le", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(waveform[None], format="s16", layout="mono")
        frame.sample_rate = 16_000
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def word_errors(heard: str) -> float:
    """Share of the words said that were not heard in their order."""
    said, words = SAID.split(), heard.lower().replace(".", "").replace("mr ", "mister ").split()
    best = np.zeros((len(said) + 1, len(words) + 1), int)
    for i, one in enumerate(said):
        for k, other in enumerate(words):
            same = best[i, k] + 1 if one == other else 0
            best[i + 1, k + 1] = max(same, best[i, k + 1], best[i + 1, k])
    return 1 - int(best[-1, -1]) / len(said)


def test_pocketsphinx_hears_words_at_their_times(tmp_path: Path) -> None:
    found = transcribe(longer(tmp_path / "a.wav", silence_s=2.0, times=2), "pocketsphinx")
    words = [word for one in found.captions for word in one.words]
    assert found.language == "en"
    half = " ".join(word.text for word in words if word.start_s < 9.1)
    assert word_errors(half) < 0.5  # a small model; about a third is wrong
    # The recogniser's times are those of the aligner within a tenth of a second, in both halves.
    for text, after_s in (("john", JOHN_S), ("power", POWER_S)):
        starts = [word.start_s for word in words if word.text == text]
        assert len(starts) == 2
        np.testing.assert_allclose(starts, [2.0 + after_s, 11.1 + after_s], atol=0.1)


def test_speech_is_only_heard_where_there_are_no_captions(tmp_path: Path) -> None:
    video = write(tmp_path / "talk.mp4", Recipe(frames=10))
    choice = CaptionChoice(asr="pocketsphinx")
    assert find_captions(video, choice).problem == "pocketsphinx: heard no words"
    video.with_name("talk.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nhello\n")
    assert find_captions(video, choice).source == "talk.srt"


def spoken_video(path: Path) -> Path:
    """Nine seconds of picture with the speech from second 2 on."""
    sound = longer(path.with_suffix(".wav"), silence_s=2.0, times=1)
    with av.open(str(sound)) as source, av.open(str(path), "w") as output:
        picture = output.add_stream("libx264", rate=10)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        speech = output.add_stream("aac", rate=16_000, layout="mono")
        for number in range(90):
            frame = av.VideoFrame(64, 48, "yuv420p")
            for plane in frame.planes:
                plane.update(bytes([number + 16]) * plane.buffer_size)
            frame.pts = number
            output.mux(picture.encode(frame))
        for heard in source.decode(audio=0):
            heard.pts = None
            output.mux(speech.encode(heard))
        output.mux(picture.encode(None))
        output.mux(speech.encode(None))
    sound.unlink()
    return path


ENGINES = ["pocketsphinx", pytest.param("faster-whisper", marks=needs_whisper)]


@pytest.mark.parametrize("engine", ENGINES)
def test_prepare_hears_what_is_said_and_cuts_it_with_the_video(
    engine: str, tmp_path: Path, capsys
) -> None:
    (tmp_path / "videos").mkdir()
    spoken_video(tmp_path / "videos" / "talk.mp4")
    asr = engine if engine == "pocketsphinx" else f"{engine}:{WHISPER}"
    words = ["prepare", str(tmp_path / "videos"), "--out", str(tmp_path / "out"), "--asr", asr]
    assert main([*words, "--part_minutes", "0.1", "--workers", "1"]) == 0
    assert f"{engine}, en" in capsys.readouterr().out
    data = ShardFolder.open(tmp_path / "out")
    records = [data.read_record(row) for row in range(len(data))]
    assert [record.captions_from for record in records] == [engine, engine]
    heard = [word for record in records for one in record.captions for word in one.words]
    assert word_errors(" ".join(word.text for word in heard)) < 0.5
    (john,) = [word for word in heard if word.text.lower() == "john"]
    assert john.start_s == pytest.approx(2.0 + JOHN_S, abs=0.15)  # AAC's delay is in its file
    for record in records:
        assert all(one.end_s <= record.facts.duration_s for one in record.captions)


@pytest.mark.slow
@needs_whisper
def test_whisper_hears_every_word_in_blocks(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("vatt.media.captions.speech._BLOCK_S", 10)
    monkeypatch.setattr("vatt.media.captions.speech._SEARCH_S", 5)
    path = longer(tmp_path / "a.wav", silence_s=2.0, times=3)
    found = transcribe(path, f"faster-whisper:{WHISPER}")
    words = [word for one in found.captions for word in one.words]
    assert found.language == "en"
    assert word_errors(" ".join(word.text for word in words if word.start_s < 9.1)) < 0.1
    starts = [word.start_s for word in words if word.text == "John"]
    assert len(starts) == 3
    np.testing.assert_allclose(starts, np.array([2.0, 11.1, 20.2]) + JOHN_S, atol=0.15)
