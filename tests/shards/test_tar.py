from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from vatt.shards.tar import COMPRESSED, DAMAGED, STRANGE, Member, Refused, read_members

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


def write_tar(path: Path, *members: tarfile.TarInfo, form: int = tarfile.GNU_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(member.name.encode() * 50))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, **values: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = len(name.encode()) * 50 if kind == tarfile.REGTYPE else 0
    for attribute, value in values.items():
        setattr(info, attribute, value)
    return info


@pytest.mark.parametrize("form", FORMATS, ids=["ustar", "gnu", "pax"])
def test_plain_files_are_found_where_tarfile_finds_them(form: int, tmp_path: Path) -> None:
    names = ["a.mp4", "train/b.mp4", "x" * 90 + "/" + "y" * 40 + ".mp4", "c.json"]
    members = [member("train", tarfile.DIRTYPE), *(member(name) for name in names)]
    if form == tarfile.PAX_FORMAT:  # as webdataset writes: times that are no whole seconds
        members += [member("Ünï.mp4", mtime=1.5)]
    path = write_tar(tmp_path / "a.tar", *members, form=form)
    with tarfile.open(path) as tar:
        expected = [Member(one.name, one.offset_data, one.size) for one in tar if one.isreg()]
    assert list(read_members(path)) == expected


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        (member("l.mp4", tarfile.SYMTYPE, linkname="/etc/passwd"), "a symbolic link"),
        (member("h.mp4", tarfile.LNKTYPE, linkname="a.mp4"), "a hard link"),
        (member("d.mp4", tarfile.CHRTYPE), "a device"),
        (member("p.mp4", tarfile.FIFOTYPE), "a named pipe"),
        (member("u.mp4", b"Z"), "of the unknown type"),
        (member("/etc/a.mp4"), "named to leave its folder"),
        (member("a/../../b.mp4"), "named to leave its folder"),
        (member("..\\b.mp4"), "named to leave its folder"),
        (member("new\nline.mp4"), "printable"),
        (member("long/" * 250 + "a.mp4"), "up to 1,024 printable"),
        (member("é" * 130 + ".mp4"), "by more than 255 bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_odd_members_are_refused_by_name_and_the_others_are_read(
    odd: tarfile.TarInfo, words: str, tmp_path: Path
) -> None:
    path = write_tar(tmp_path / "a.tar", member("a.mp4"), odd, member("z.mp4"))
    first, refused, last = read_members(path)
    assert isinstance(refused, Refused)
    assert refused.cause == STRANGE
    assert words in refused.reason
    assert isinstance(first, Member)
    assert isinstance(last, Member)
    assert (first.name, last.name) == ("a.mp4", "z.mp4")


def test_extended_headers_may_not_change_what_a_member_is(tmp_path: Path) -> None:
    sparse = member("s.mp4", pax_headers={"GNU.sparse.realsize": "99999999999"})
    path = write_tar(tmp_path / "a.tar", sparse, member("b.mp4"), form=tarfile.PAX_FORMAT)
    refused, good = read_members(path)
    assert isinstance(refused, Refused)
    assert "GNU.sparse.realsize" in refused.reason
    assert isinstance(good, Member)


def test_a_sparse_file_with_a_long_map_is_passed_over(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", member("s.mp4"), member("b.mp4"))
    content = bytearray(path.read_bytes())
    header, more = bytearray(content[:512]), bytearray(512)
    header[156:157], header[482] = tarfile.GNUTYPE_SPARSE, 1
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:]))
    path.write_bytes(bytes(header) + bytes(more) + bytes(content[512:]))
    refused, good = read_members(path)
    assert isinstance(refused, Refused)
    assert "a sparse file" in refused.reason
    assert good == Member("b.mp4", 512 * 4, 250)


def test_a_header_that_would_fill_the_memory_is_damage(tmp_path: Path) -> None:
    huge = tarfile.TarInfo("long")
    huge.type, huge.size = tarfile.XHDTYPE, 2**33
    path = tmp_path / "a.tar"
    path.write_bytes(huge.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    (refused,) = read_members(path)
    assert isinstance(refused, Refused)
    assert refused.cause == DAMAGED
    assert "an extended header of 8,589,934,592 bytes" in refused.reason


def test_packed_tars_are_refused_with_advice(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(gzip.compress(b"x" * 2000))
    (refused,) = read_members(path)
    assert isinstance(refused, Refused)
    assert refused.cause == COMPRESSED
    assert "gzip" in refused.reason
    assert "unpack it" in refused.reason


def test_a_cut_tar_gives_its_whole_members_then_the_damage(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", member("a.mp4"), member("b.mp4"))
    content = path.read_bytes()
    for length in (1024, 1100, 1700):  # at the border of a member, in a header, in a member
        path.write_bytes(content[:length])
        good, damage = read_members(path)
        assert isinstance(good, Member)
        assert isinstance(damage, Refused)
        assert damage.cause == DAMAGED


def test_changed_bytes_never_stop_the_reader(tmp_path: Path) -> None:
    """Headers of all kinds with bytes changed: only members within the file, or refusals."""
    members = [member("x" * 150 + ".mp4"), member("é.mp4", mtime=1.5), member("a.mp4")]
    path = tmp_path / "a.tar"
    rng = np.random.default_rng(0)
    for number in range(600):
        form = FORMATS[1 + number % 2]
        content = np.frombuffer(write_tar(path, *members, form=form).read_bytes(), np.uint8).copy()
        for place in rng.integers(0, 5000, rng.integers(1, 4)):
            content[place] = rng.integers(256)
        path.write_bytes(content.tobytes())
        for one in read_members(path):
            if isinstance(one, Member):
                assert one.offset >= 512
                assert one.offset + one.size <= len(content)
