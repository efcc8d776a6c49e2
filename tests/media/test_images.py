"""Images as cameras and programs write them: JPEG of every kind, turned, with others behind."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from vatt.errors import MediaError
from vatt.media.media_file import decode_frames, open_media


@pytest.fixture(scope="module")
def image():
    """A corner of each side is of its own colour, and all of it is larger than what is probed."""
    noise = np.random.default_rng(0).integers(0, 60, (240, 320, 3), np.uint8)
    for number, part in enumerate((noise[:120, :160], noise[:120, 160:], noise[120:, :160])):
        part[..., number] += 150
    return Image.fromarray(noise)


def read(path: Path) -> np.ndarray:
    """Its only frame, uint8 [H, W, 3], upright and of its own size."""
    with open_media(path) as media:
        assert media.count_frames() == 1
        video = media.facts.video
        assert video is not None
        size = (video.height, video.width)
    size = size[::-1] if video.rotation in (90, 270) else size
    (frame,) = decode_frames(path, np.zeros(1), size=size)
    return frame


def mean_colours(frame) -> np.ndarray:
    """Of the four quarters, [2, 2, 3]."""
    H, W, _ = frame.shape
    return frame.reshape(2, H // 2, 2, W // 2, 3).mean((1, 3))


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG"])
@pytest.mark.parametrize(
    "how", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 30}], ids=str
)
def test_jpeg_has_the_colours_that_other_programs_see(image, tmp_path, suffix, how):
    path = tmp_path / f"100% n° %d{suffix}"
    image.save(path, format="JPEG", **how)
    with open_media(path) as media:
        assert media.is_image
    found = read(path)
    expected = mean_colours(np.asarray(Image.open(path)).astype(float))
    np.testing.assert_allclose(mean_colours(found.astype(float)), expected, atol=3)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_printed_jpeg_is_read(image, tmp_path, mode):
    path = tmp_path / "x.jpg"
    image.convert(mode).save(path)
    found = read(path)
    assert found.shape == (240, 320, 3)


@pytest.mark.parametrize("turn", [1, 3, 6, 8])
def test_a_photo_is_set_upright_as_its_exif_says(image, tmp_path, turn):
    exif = Image.Exif()
    exif[0x112] = turn
    image.save(tmp_path / "x.jpg", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "x.jpg")))
    found = read(tmp_path / "x.jpg")
    assert found.shape == expected.shape
    colours = mean_colours(expected.astype(float))
    np.testing.assert_allclose(mean_colours(found.astype(float)), colours, atol=3)


def test_of_several_images_in_one_jpeg_file_the_first_is_taken(image, tmp_path):
    exif = Image.Exif()
    exif[0x112] = 1
    small = Image.new("RGB", (64, 48))
    path = tmp_path / "phone.jpg"
    image.save(path, format="MPO", save_all=True, append_images=[small], exif=exif)
    path.write_bytes(path.read_bytes() + b"more")
    assert read(path).shape == (240, 320, 3)


def test_what_is_called_jpeg_and_is_none_is_read_as_what_it_is_or_refused(image, tmp_path):
    image.save(tmp_path / "png.jpg", format="PNG")
    assert read(tmp_path / "png.jpg").shape == (240, 320, 3)
    (tmp_path / "text.jpg").write_text("no image")
    image.save(tmp_path / "cut.jpg")
    whole = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    (tmp_path / "noise.jpg").write_bytes(b"\xff\xd8\xff" + b"x" * 500)
    early = "opened: found JPEG that ends early"
    for name, why in (
        ("text.jpg", "opened: found no kind of media"),
        ("cut.jpg", early),
        ("noise.jpg", early),
    ):
        with pytest.raises(MediaError, match=rf"{name}: cannot be {why}"):
            read(tmp_path / name)
