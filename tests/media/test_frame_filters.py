"""Pictures look as their files say: colours, orientation, shape, transparency, interlacing."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.media.clips import write_frames
from tests.media.reading import decode_all_frames, encode_parts
from tests.media.swatches import COLOURS, Swatches, quarters, seen, write_swatches, yuv_frame
from vatt.media.media_file import decode_frames, probe
from vatt.media.stored_form import StoredForm

FORM = StoredForm(short_side=256, fps=Fraction(10), gop=16)
PLAIN = Swatches()
X264 = {"qp": "0", "preset": "ultrafast"}
# Each of three conversions (coding, decoding, scaling) rounds to integers, chroma in steps of 1.8
# grey levels. A wrong matrix is off by 10 or more, a wrong range by 10 or more.
TOLERANCE = 4
STORED_TOLERANCE = 6  # x264's rounding at crf 20 comes on top


def shown(path: Path, *, frame: int = 0) -> NDArray[np.float64]:
    """The four colours of a frame as a model gets them from the file itself."""
    facts = probe(path).video
    assert facts is not None
    return seen(decode_all_frames(path, size=(facts.height, facts.width))[0][frame])


def stored(path: Path) -> Path:
    (part,) = encode_parts(path, path.parent, FORM)
    return part.path


CODINGS = {
    "601 limited": replace(PLAIN, matrix="601"),
    "601 full": replace(PLAIN, matrix="601", full_range=True),
    "709 limited": PLAIN,
    "709 full": replace(PLAIN, full_range=True),
    "2020 matrix": replace(PLAIN, matrix="2020"),
    "untagged, small": replace(PLAIN, matrix="601", tagged=False),
    "untagged, 720p": replace(PLAIN, tagged=False, size=(720, 1280)),
    "4:2:0": replace(PLAIN, pix_fmt="yuv420p"),
    "4:2:2": replace(PLAIN, pix_fmt="yuv422p"),
    "4:1:1": replace(PLAIN, pix_fmt="yuv411p", matrix="601"),
    "10 bits": replace(PLAIN, pix_fmt="yuv420p10le"),
    "10 bits, full": replace(PLAIN, pix_fmt="yuv422p10le", full_range=True),
    "RGB": replace(PLAIN, pix_fmt="bgr0", tagged=False),
    "odd sizes": replace(PLAIN, pix_fmt="yuv420p", size=(47, 63)),
    "H.264 full": replace(
        PLAIN, codec="libx264", pix_fmt="yuv420p", full_range=True, options=X264, matrix="601"
    ),
    "H.264 10 bits": replace(PLAIN, codec="libx264", pix_fmt="yuv420p10le", options=X264),
}


@pytest.mark.parametrize("name", CODINGS)
def test_colours_are_those_that_were_coded(name: str, tmp_path: Path) -> None:
    path = write_swatches(tmp_path / "a.mkv", CODINGS[name])
    np.testing.assert_allclose(shown(path), COLOURS, atol=TOLERANCE)
    np.testing.assert_allclose(shown(stored(path)), COLOURS, atol=STORED_TOLERANCE)


def test_grey_stays_grey(tmp_path: Path) -> None:
    greys = np.repeat([[0.0], [80.0], [160.0], [255.0]], 3, axis=1)
    recipe = replace(PLAIN, pix_fmt="gray", full_range=True, matrix="601")
    path = write_swatches(tmp_path / "a.mkv", recipe, greys / 255)
    np.testing.assert_allclose(shown(path), greys, atol=1)
    np.testing.assert_allclose(shown(stored(path)), greys, atol=3)


def test_what_is_stored_says_how_its_colours_are_coded(tmp_path: Path) -> None:
    recipe = replace(PLAIN, matrix="601", full_range=True)
    with av.open(str(stored(write_swatches(tmp_path / "a.mkv", recipe)))) as container:
        context = container.streams.video[0].codec_context
        frame = next(container.decode(video=0))
    assert (context.colorspace, context.color_range) == (1, 1)
    assert (context.color_trc, context.color_primaries) == (1, 1)
    assert (frame.format.name, frame.colorspace, frame.color_range) == ("yuv420p", 1, 1)


# ── HDR ──────────────────────────────────────────────────────────────────────────────────────────

NITS = np.array([0.5, 20.0, 203.0, 1000.0])  # nearly black, dim, white paper, a lamp
RED = np.array([180.0, 0.1, 0.1])


def pq(nits: NDArray[np.float64]) -> NDArray[np.float64]:
    """SMPTE ST 2084."""
    power = (nits / 10_000) ** 0.1593017578125
    return np.asarray(((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375)


def hlg(nits: NDArray[np.float64]) -> NDArray[np.float64]:
    """ARIB STD-B67 for grey on a display of 1,000 cd/m² (system gamma 1.2)."""
    scene = (nits / 1000) ** (1 / 1.2)
    high = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), high)


@pytest.mark.parametrize(
    ("curve", "code"),
    [(16, pq), pytest.param(18, hlg, marks=pytest.mark.slow)],  # 4 s each: libswscale's 3-D table
    ids=["PQ", "HLG"],
)
def test_hdr_becomes_frames_with_dark_middle_light_and_vivid_red(
    curve: int, code, tmp_path: Path
) -> None:
    recipe = replace(PLAIN, pix_fmt="yuv420p10le", matrix="2020", primaries=9, curve=curve)
    greys = np.repeat(code(NITS)[:, None], 3, axis=1)
    reds = np.array([code(RED), *[code(np.full(3, 100.0))] * 3])
    path = stored(write_swatches(tmp_path / "a.mkv", recipe, np.stack([greys, reds])))
    colours = shown(path)
    assert np.ptp(colours, axis=1).max() < 4  # grey stays grey
    black, dim, paper, lamp = colours.mean(1)
    assert black < 25
    assert 60 < dim < 110
    assert 145 < paper < 220  # without a conversion, the codes of PQ give 146 …
    assert 200 < lamp <= 255  # … and 190: grey in place of light
    assert lamp - paper > 30  # a lamp is not cut off to the white of paper
    assert is_vivid_red(shown(path, frame=1)[0])


def is_vivid_red(colour: NDArray[np.float64]) -> bool:
    red, green, blue = colour
    return bool(red > 130 and max(green, blue) < red / 2)


@pytest.mark.slow  # the same of the stored form is above
def test_a_vivid_red_of_hdr_is_read_as_red(tmp_path: Path) -> None:
    recipe = replace(PLAIN, pix_fmt="yuv420p10le", matrix="2020", primaries=9, curve=16)
    colours = np.array([pq(RED), *[pq(np.full(3, 100.0))] * 3])
    assert is_vivid_red(shown(write_swatches(tmp_path / "a.mkv", recipe, colours))[0])


# ── upright, square, even ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_all_eight_orientations_are_shown_upright(
    turn: int, mirrored: bool, tmp_path: Path
) -> None:
    recipe = replace(
        PLAIN, codec="libx264", pix_fmt="yuv420p", options=X264, turn=turn, mirrored=mirrored
    )
    path = write_swatches(tmp_path / "a.mp4", recipe)
    upright = np.rot90(COLOURS.reshape(2, 2, 3), turn // 90)  # counter-clockwise, then the mirror
    upright = upright[:, ::-1] if mirrored else upright
    size = (64, 48) if turn % 180 else (48, 64)
    frames, _, _ = decode_all_frames(path, size=size)
    np.testing.assert_allclose(seen(frames[0]), upright.reshape(4, 3), atol=TOLERANCE)
    kept = probe(stored(path)).video
    assert kept is not None
    assert ((kept.height, kept.width), kept.rotation, kept.mirrored) == (size, 0, False)
    np.testing.assert_allclose(
        shown(tmp_path / "part-0000.mp4"), upright.reshape(4, 3), atol=STORED_TOLERANCE
    )


def test_wide_pixels_become_square_by_making_the_frame_smaller(tmp_path: Path) -> None:
    recipe = replace(PLAIN, codec="libx264", options=X264, aspect=Fraction(3, 2))
    path = write_swatches(tmp_path / "a.mkv", recipe)
    facts = probe(stored(path)).video
    assert facts is not None
    assert (facts.height, facts.width, facts.sample_aspect) == (32, 64, Fraction(1))
    np.testing.assert_allclose(shown(tmp_path / "part-0000.mp4"), COLOURS, atol=STORED_TOLERANCE)


def test_odd_sides_are_stored_even(tmp_path: Path) -> None:
    path = write_swatches(tmp_path / "a.mkv", replace(PLAIN, pix_fmt="yuv420p", size=(47, 63)))
    facts = probe(stored(path)).video
    assert facts is not None
    assert (facts.height, facts.width) == (48, 64)


def test_a_size_that_changes_on_the_way_is_scaled_to_the_first(tmp_path: Path) -> None:
    """Two transport streams one after the other, as a broadcast switches programmes."""
    path = tmp_path / "a.ts"
    recipe = replace(PLAIN, codec="libx264", pix_fmt="yuv420p", options=X264)
    small = write_swatches(tmp_path / "small.ts", recipe).read_bytes()
    later = replace(recipe, size=(96, 128), first=2)
    path.write_bytes(small + write_swatches(tmp_path / "large.ts", later).read_bytes())
    frames, _, _ = decode_all_frames(path, size=(48, 64))
    assert len(frames) == 4
    for frame in frames:
        np.testing.assert_allclose(seen(frame), COLOURS, atol=TOLERANCE)


# ── transparency, palettes ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("png.mov", "png", "rgba"),
        ("animation.mov", "qtrle", "argb"),
        ("planes.mkv", "ffv1", "yuva444p"),
    ],
)
def test_what_is_transparent_is_shown_over_black(
    name: str, codec: str, pix_fmt: str, tmp_path: Path
) -> None:
    alpha = np.array([1.0, 0.5, 0.0, 1.0])
    rgba = quarters(COLOURS, (48, 64)).round().astype(np.uint8)
    opacity = quarters(np.repeat(alpha[:, None], 3, axis=1), (48, 64))[..., :1]
    rgba = np.concatenate([rgba, (255 * opacity).round().astype(np.uint8)], axis=-1)
    frames = [av.VideoFrame.from_ndarray(rgba, "rgba").reformat(format=pix_fmt) for _ in range(2)]
    path = write_frames(tmp_path / name, frames, codec=codec)
    expected = COLOURS * alpha[:, None]
    np.testing.assert_allclose(shown(path), expected, atol=TOLERANCE)
    np.testing.assert_allclose(shown(stored(path)), expected, atol=STORED_TOLERANCE)


@pytest.mark.parametrize("pix_fmt", ["rgba", "rgba64be", "ya8", "ya16be", "pal8"])
def test_what_is_transparent_in_an_image_is_shown_over_white(pix_fmt: str, tmp_path: Path) -> None:
    alpha = np.array([1.0, 0.5, 0.0, 1.0])  # black, so that all that is seen is the background
    rgba = np.zeros((48, 64, 4), np.uint8)
    opacity = quarters(np.repeat(alpha[:, None], 3, axis=1), (48, 64))[..., :1]
    rgba[..., 3:] = (255 * opacity).round().astype(np.uint8)
    frame = av.VideoFrame.from_ndarray(rgba, "rgba")
    if pix_fmt == "pal8":  # it has one entry for each opacity
        frame = av.VideoFrame(64, 48, "pal8")
        plane, levels = frame.planes[0], (255 * alpha).round().astype(np.uint8)
        rows = np.zeros((48, plane.line_size), np.uint8)
        rows[:, :64] = np.searchsorted(np.unique(levels), rgba[..., 3])
        plane.update(rows.tobytes())
        palette = np.zeros((256, 4), np.uint8)
        palette[:3, 3] = np.unique(levels)
        frame.planes[1].update(palette.tobytes())
    path = tmp_path / "a.png"
    with av.open(str(path), "w", format="image2", options={"update": "1"}) as output:
        stream = output.add_stream("png")
        stream.width, stream.height, stream.pix_fmt = 64, 48, pix_fmt
        kept = frame if pix_fmt == "pal8" else frame.reformat(format=pix_fmt)
        output.mux([*stream.encode(kept), *stream.encode()])
    expected = np.repeat(1 - alpha[:, None], 3, axis=1) * 255
    np.testing.assert_allclose(shown(path), expected, atol=TOLERANCE)
    np.testing.assert_allclose(shown(stored(path)), expected, atol=STORED_TOLERANCE)


def test_frames_with_a_palette_keep_its_colours(tmp_path: Path) -> None:
    picture = quarters(COLOURS, (48, 64)).round().astype(np.uint8)
    frames = [av.VideoFrame.from_ndarray(picture).reformat(format="rgb8") for _ in range(2)]
    path = write_frames(tmp_path / "a.gif", frames, codec="gif")  # of 8, 8 and 4 levels
    # Half of the widest step of `rgb8` (85), for blue; dithering may add as much.
    np.testing.assert_allclose(shown(path), COLOURS, atol=60)
    np.testing.assert_allclose(shown(stored(path)), shown(path), atol=STORED_TOLERANCE + 4)


# ── interlacing ──────────────────────────────────────────────────────────────────────────────────

FIELDS = 60  # half-frames: a white bar moves 4 pixels from each to the next


def bar(moment: int) -> NDArray[np.float64]:
    picture = np.zeros((96, 128, 3))
    left = 4 + 2 * moment % 96
    picture[:, left : left + 24] = 0.9
    return picture


def write_interlaced(path: Path, codec: str, options: dict[str, str]) -> Path:
    frames = []
    for number in range(FIELDS // 2):
        woven = bar(2 * number)
        woven[1::2] = bar(2 * number + 1)[1::2]  # the lower field is half a frame later
        frames.append(yuv_frame(woven, replace(PLAIN, pix_fmt="yuv420p")))
    return write_frames(path, frames, codec=codec, fps=25, options=options)


INTERLACED = {
    "h264.mkv": ("libx264", {"x264-params": "tff=1", "g": "12", "bf": "0", "crf": "10"}),
    "mpeg2.mpg": ("mpeg2video", {"flags": "+ildct+ilme", "top": "1", "b": "4M", "g": "12"}),
}


def combing(frames: NDArray[np.uint8]) -> float:
    """How much neighbouring rows differ more than rows two apart: teeth at moving edges."""
    rows = frames.astype(float).mean(-1)
    near = np.abs(np.diff(rows, axis=1)).mean()
    return float(near - np.abs(rows[:, 2:] - rows[:, :-2]).mean())


@pytest.mark.parametrize("name", INTERLACED)
def test_interlaced_frames_are_made_whole(name: str, tmp_path: Path) -> None:
    path = write_interlaced(tmp_path / name, *INTERLACED[name])
    facts = probe(path).video
    assert facts is not None
    assert facts.interlaced
    frames, times_s, _ = decode_all_frames(path, size=(96, 128))
    with av.open(str(path)) as container:
        decoded = list(container.decode(video=0))
    woven = np.stack([frame.to_ndarray(format="rgb24") for frame in decoded], dtype=np.uint8)
    assert combing(woven) > 3
    assert combing(frames) < 0.3
    assert len(frames) == FIELDS // 2
    own_s = np.array([frame.time for frame in decoded])  # MPEG-2's are not all 40 ms apart
    np.testing.assert_allclose(times_s, own_s - own_s[0], atol=1e-6)
    part = stored(path)
    kept = probe(part).video
    assert kept is not None
    assert not kept.interlaced
    assert combing(decode_all_frames(part, size=(96, 128))[0]) < 0.3


def test_an_interlaced_frame_has_the_same_bytes_after_a_seek(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("vatt.media.video._SEEK_AFTER_S", 0.1)
    path = write_interlaced(tmp_path / "a.mkv", *INTERLACED["h264.mkv"])
    frames, times_s, _ = decode_all_frames(path, size=(96, 128))
    for k in (12, 13, 24, 27, 29):  # key frames among them
        again = decode_frames(path, times_s[k : k + 1], size=(96, 128))
        np.testing.assert_array_equal(again[0], frames[k])
