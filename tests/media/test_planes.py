from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from tests.media.clips import Recipe, numbers, write
from tests.media.plane_clips import FPS, smooth_planes, write_planes
from vatt.contracts import PlaneLayout
from vatt.errors import MediaError
from vatt.media.container import FilePart
from vatt.media.media_file import decode_frames, open_media
from vatt.media.planes import Box, Planes

FRAMES, HEIGHT, WIDTH = 60, 48, 64


def everything(height: int, width: int) -> Box:
    return Box(0, 0, height, width)


def planes_of(source: Path | bytes | FilePart, times_s, cut=everything) -> Planes:
    with open_media(source, quickly=True) as media:
        return media.planes(np.array(times_s), cut)


def assert_shows(found: Planes, planes: list[NDArray[np.uint8]], shown) -> None:
    """Exactly these frames of these planes, cut to the box."""
    assert_array_equal(found.luma, planes[0][shown][:, *found.box.luma])
    for number in (0, 1):
        part = planes[1 + number][shown][:, *found.box.chroma]
        assert_array_equal(found.chroma[:, number], part)


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("planes") / "stored.mp4"
    return write_planes(path, smooth_planes(FRAMES, HEIGHT, WIDTH))


@pytest.mark.parametrize("start", [0, 7, 12, 25, 44])
def test_planes_are_those_stored_after_any_seek(stored, start):
    shown = [*range(start, start + 8), start + 15]
    found = planes_of(stored, [n / FPS + 0.03 for n in shown])
    assert found.form == PlaneLayout(HEIGHT, WIDTH, bt709=False, full_range=False)
    assert_shows(found, smooth_planes(FRAMES, HEIGHT, WIDTH), shown)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, FRAMES - 1), min_size=1, max_size=9), st.data())
def test_any_frames_in_any_order_and_any_box_are_those_stored(stored, shown, data):
    top, left = (2 * data.draw(st.integers(0, half)) for half in (10, 15))
    bottom = data.draw(st.integers(top // 2 + 1, HEIGHT // 2)) * 2
    right = data.draw(st.integers(left // 2 + 1, WIDTH // 2)) * 2
    found = planes_of(stored, [n / FPS for n in shown], lambda *_: Box(top, left, bottom, right))
    assert_shows(found, smooth_planes(FRAMES, HEIGHT, WIDTH), shown)


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
@pytest.mark.parametrize("b_frames", [0, 2])
def test_planes_of_uneven_times_that_start_late(tmp_path, ending, b_frames):
    planes = smooth_planes(30, HEIGHT, WIDTH)
    random = np.random.default_rng(3)
    times_s = np.cumsum(random.integers(20, 300, 30)) / 1000
    times_s -= times_s[0]
    path = write_planes(
        tmp_path / f"late.{ending}",
        planes,
        times_s=times_s.tolist(),
        starts_s=1.5,
        options={"bf": str(b_frames)},
    )
    asked = np.sort(random.uniform(0, times_s[-1], 12))
    shown = np.searchsorted(times_s, asked + 0.001, side="right") - 1
    assert_shows(planes_of(path, asked), planes, shown)
    assert_shows(planes_of(path, asked[-3:]), planes, shown[-3:])


def test_a_part_of_a_file_is_read_like_the_file(stored, tmp_path):
    content = stored.read_bytes()
    (tmp_path / "shard: a,b.tar").write_bytes(bytes(1000) + content + bytes(1000))
    part = FilePart(tmp_path / "shard: a,b.tar", 1000, len(content))
    times_s = np.arange(5) / FPS + 3.0
    assert_array_equal(planes_of(part, times_s).flat, planes_of(stored, times_s).flat)
    with pytest.raises(MediaError, match="at byte 1,000"):
        planes_of(FilePart(part.path, 1000, 500), times_s)


def test_all_planes_are_those_stored(stored):
    with open_media(stored) as media:
        found, starts_s, _ = media.all_planes()
    np.testing.assert_allclose(starts_s, np.arange(FRAMES) / FPS, atol=1e-9)
    assert_shows(found, smooth_planes(FRAMES, HEIGHT, WIDTH), np.arange(FRAMES))


def test_a_time_past_the_end_is_an_error(stored):
    with pytest.raises(MediaError, match=r"needs the frame at 6.00 s .*video ends at 6.00 s"):
        planes_of(stored, [5.0, 6.0])


@pytest.mark.parametrize(
    ("tags", "form"),
    [
        ({"colorspace": 1}, (True, False)),
        ({"colorspace": 6}, (False, False)),
        ({"colorspace": 5, "full_range": True}, (False, True)),
        ({"colorspace": 2}, (False, False)),  # untagged and small
    ],
)
def test_the_form_is_that_of_the_tags(tmp_path, tags, form):
    planes = smooth_planes(4, 32, 32)
    found = planes_of(write_planes(tmp_path / "v.mp4", planes, **tags), [0.0, 0.2])
    assert (found.form.bt709, found.form.full_range) == form
    assert_shows(found, planes, [0, 2])


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(pix_fmt="yuv444p"),
        Recipe(pix_fmt="yuv422p10le"),
        Recipe(rotation=90),
        Recipe(size=(624, 720)),  # larger than planes are kept
        Recipe(video_codec="mpeg4"),
        Recipe(video_codec="mjpeg", pix_fmt="yuvj422p", options={}),
    ],
    ids=["444", "10-bit", "rotated", "large", "mpeg4", "full-range"],
)
def test_other_kinds_of_frames_become_such_planes(tmp_path, recipe):
    path = write(tmp_path / "v.mkv" if recipe.rotation == 0 else tmp_path / "v.mp4", recipe)
    times_s = np.array([0.3, 0.5, 1.7])
    found = planes_of(path, times_s)
    height, width = found.form.height, found.form.width
    expected = decode_frames(path, times_s, size=(height, width)).astype(float)
    assert min(height, width) == min(*recipe.size, 512)
    if not recipe.rotation:
        assert numbers(np.repeat(found.luma[..., None], 3, axis=3)) == [3, 5, 17]
    # Luma says how bright; the pictures are grey: 16 to 235 in limited range, coded with loss.
    grey = (found.luma - 16.0) * 255 / 219
    if found.form.full_range:
        grey = found.luma.astype(float)
    assert np.abs(grey - expected.mean(-1)).mean() < 2.0
    assert np.abs(found.chroma.astype(int) - 128).max() <= 3


def test_a_video_that_changes_its_size_on_the_way_keeps_the_first_form(tmp_path):
    first, second = smooth_planes(6, 32, 48), smooth_planes(6, 64, 96, seed=1)
    path = tmp_path / "both.ts"
    parts = [
        write_planes(tmp_path / f"{n}.ts", planes, starts_s=n * 6 / FPS).read_bytes()
        for n, planes in enumerate((first, second))
    ]
    path.write_bytes(b"".join(parts))
    with open_media(path) as media:
        found, *_ = media.all_planes()
    assert found.form == PlaneLayout(32, 48, bt709=False, full_range=False)
    assert_array_equal(found.luma[:6], first[0])
    halved = second[0].reshape(6, 32, 2, 48, 2).mean((2, 4))
    assert np.abs(found.luma[6:] - halved).mean() < 1.0  # scaled and rounded
