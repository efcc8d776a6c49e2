"""A file gives the same clip through shards, in training and evaluation, as by `vatt.load`.

Between the two lies one thing only: the compression of the stored video (H.264, crf 20). So frames
differ by its noise: 0.4 to 1.3 grey levels of 255 where frames are averaged as they shrink, 1.3 to
2.8 where they are not (the official way). Cosines of what random weights make of them stay above
0.998. What this finds is far from it: frames that are turned twice differ by 40 to 60 grey levels,
and cosines of their features are 0.51 to 0.97.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity

import vatt
from vatt.cli.main import main
from vatt.contracts import Batch, ClipSpec, FramePath
from vatt.data.augment import AugmentConfig, apply
from vatt.data.clip_timing import spread_starts
from vatt.data.data_config import DataConfig
from vatt.data.datasets import ClipDataset, EvalDataset
from vatt.data.file_clips import CLIPS_OF_FILE, spread_frames
from vatt.data.resize import centre_crop
from vatt.media.media_file import open_media
from vatt.shards.read import ShardFolder

GREY_LEVEL = 2 / 255
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Film:
    """Size as stored; it is shown turned by `rotation`, with pixels as wide as `aspect`."""

    size: tuple[int, int]
    fps: int = 25
    rotation: int = 0
    aspect: Fraction = Fraction(1)
    tagged: bool = True


FILMS = {
    "16:9": Film(size=(360, 640), fps=30),
    "9:16": Film(size=(640, 360)),
    "4:3": Film(size=(480, 640)),
    "turned": Film(size=(270, 480), rotation=90),
    "wide pixels": Film(size=(288, 352), aspect=Fraction(16, 11)),
    "odd": Film(size=(277, 301)),
    "small": Film(size=(90, 120), fps=8),
}


def write(path: Path, film: Film) -> Path:
    """Coloured waves that wander, and a red disc; 1.2 seconds."""
    height, width = film.size
    y, x = np.ogrid[:height, :width]
    with av.open(str(path), "w") as output:
        options = {"crf": "4", "preset": "ultrafast"}
        stream = output.add_stream("libx264", rate=film.fps, options=options)
        stream.height, stream.width = height, width
        stream.pix_fmt = "yuv444p" if height % 2 else "yuv420p"  # odd sides need all their chroma
        stream.sample_aspect_ratio = film.aspect
        if film.rotation:
            stream.set_display_rotation(film.rotation)
        for number in range(round(1.2 * film.fps)):
            t = number / film.fps
            waves = [
                np.sin(x / (9 + 4 * c) + 5 * t) * np.cos(y / (7 + 5 * c) - 3 * t) for c in range(3)
            ]
            frame = 125 + 90 * np.stack(waves, -1)
            distance = np.hypot(x - width * (0.2 + 0.3 * t), y - height / 2)
            frame[distance < height / 5] = 230, 30, 40
            image = av.VideoFrame.from_ndarray(frame.astype(np.uint8), format="rgb24")
            output.mux(stream.encode(image))
        output.mux(stream.encode())
    return path


@pytest.fixture(scope="module", params=FILMS)
def prepared(request, tmp_path_factory) -> tuple[Path, dict[str, ShardFolder]]:
    """A file, and its shards by rate."""
    folder = tmp_path_factory.mktemp("film")
    (folder / "clips").mkdir()
    path = write(folder / "clips" / "film.mp4", FILMS[request.param])
    rates = ("10", "25") if FILMS[request.param].fps == 25 else ("10", "25", "source")
    shards = {}
    for fps in rates:
        out = folder / fps
        words = ["prepare", str(path.parent), "--out", str(out), "--fps", fps, "--workers", "1"]
        assert main(words) == 0
        shards[fps] = ShardFolder.open(out)
    return path, {"source": shards["25"]} | shards


PATHS = {
    "planes": ("10", FramePath(short_side=256, fps=10.0)),
    "rgb": ("source", FramePath(decode="rgb", decode_size=(24, 32), short_side=256)),
    "official": ("25", FramePath(frame_step="stride", antialias=False, short_side=256, fps=25.0)),
}


@pytest.fixture(params=PATHS)
def both_ways(request, prepared, tiny):
    """Frames [4, T, H, W, 3] of the four clips from the shards, and from the file."""
    path, shards = prepared
    fps, frame_path = PATHS[request.param]
    spec = vatt.load(tiny.run, "cpu").spec
    data = DataConfig(
        shards=(shards[fps].folder,),
        decode=frame_path.decode,
        decode_size=frame_path.decode_size,
        frame_step=frame_path.frame_step,
        batch_size=1,
    )
    end_s = float(shards[fps].column("duration_s")[0])
    places = [(0, start_s) for start_s in spread_starts(end_s, spec, CLIPS_OF_FILE)]
    batch = EvalDataset(shards[fps], places, spec, data).batch(range(CLIPS_OF_FILE))
    stored = apply(batch, spec, antialias=frame_path.antialias).frames
    with open_media(path) as media:
        direct = spread_frames(media, spec, frame_path, CPU)
    return stored, direct, data, frame_path


def test_a_file_gives_the_frames_that_its_shards_give(both_ways, tiny):
    stored, direct, _, frame_path = both_ways
    difference = (stored - direct).abs().mean() / GREY_LEVEL
    assert difference < (1.5 if frame_path.antialias else 3.0)
    model = vatt.load(tiny.run, "cpu", autocast="off")
    torch.manual_seed(0)  # trained weights depend on the processor
    for module in model.module.modules():
        draw: Any = getattr(module, "reset_parameters", lambda: None)
        draw()
    one, other = model.encode_video(stored), model.encode_video(direct)
    for kind in ("features", "va", "vt"):
        assert cosine_similarity(getattr(one, kind), getattr(other, kind)).min() > 0.998


def test_training_without_random_crops_takes_the_frames_of_evaluation(both_ways, prepared, tiny):
    *_, data, frame_path = both_ways
    spec = vatt.load(tiny.run, "cpu").spec
    off = AugmentConfig(crop_area=(1, 1), flip=False, colour_probability=0.0)
    trained = ClipDataset(data, spec, off, None, seed=0).batch([0])
    shards = ShardFolder.open(data.shards[0])
    evaluated = EvalDataset(shards, [(0, trained.starts_s[0])], spec, data).batch([0])
    one, other = (
        apply(batch, spec, antialias=frame_path.antialias).frames for batch in (trained, evaluated)
    )
    assert torch.equal(one, other)


def test_clips_of_several_shapes_are_one_batch_of_rgb(prepared, tmp_path):
    """The wider frames lie beside the others; a clip comes out as it does alone."""
    _, shards = prepared
    spec = ClipSpec(frames=4, fps=5, height=24, width=32, sample_rate_hz=4000)
    data = DataConfig(shards=(shards["10"].folder,), decode="rgb", decode_size=(24, 32))
    wide = EvalDataset(shards["10"], [(0, 0.0)], spec, data)[0]
    square = replace(wide, frames=wide.frames[:, :, :24], augmentation=centre_crop(1.0, spec))
    both = apply(Batch.collate([square, wide]), spec).frames
    for place, clip in enumerate((square, wide)):
        alone = apply(Batch.collate([clip]), spec).frames[0]
        torch.testing.assert_close(both[place], alone, rtol=0, atol=1e-5)
    joined = Batch.joined([Batch.collate([clip]) for clip in (square, wide)])
    torch.testing.assert_close(apply(joined, spec).frames, both)


def test_a_run_keeps_how_its_frames_were_made_and_old_folders_are_read_by_their_settings(
    tiny, tmp_path
):
    kept = vatt.load(tiny.run).frame_path
    assert kept == FramePath(decode="rgb", decode_size=(24, 32), short_side=256, copy=True)
    old = tmp_path / "run"
    shutil.copytree(tiny.run, old)
    settings = json.loads((old / "model" / "config.json").read_text())
    del settings["frame_path"]
    settings["format_version"] = "1.1"
    (old / "model" / "config.json").write_text(json.dumps(settings))
    assert vatt.load(old).frame_path == replace(kept, short_side=None, copy=False)
    assert vatt.load(old, autocast="bfloat16").frame_path.autocast == "bfloat16"
    (old / "config.toml").unlink()
    assert vatt.load(old).frame_path == FramePath()
