"""The 19 checkpoints that the paper's authors published: names, sizes, the paper's numbers, files.

Nothing here uses a network until `download` is called.
"""

from __future__ import annotations

import base64
import logging
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

import google_crc32c

from vatt.errors import ConversionError
from vatt.storage import put_in_place

logger = logging.getLogger(__name__)

BASE_URL = "https://storage.googleapis.com/tf_model_garden/vision/vatt"
VOCABULARY, WORDS = "misc_data.tgz", "howto100m_en.txt"
PARTS = (".index", ".data-00000-of-00001")
_BLOCK = 1 << 20
_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class OfficialCheckpoint:
    """One published checkpoint.

    path: of its two files without their endings, below `BASE_URL`.
    parameters_m: millions, word vectors and classifier included; counted on the official code.
    paper: the paper's numbers, in per cent (MedR: a rank); where it has none, the README's.
    """

    name: str
    path: str
    kind: str
    size: str
    parameters_m: float
    paper: str

    @property
    def pretrained(self) -> bool:
        """Whether it has both common spaces, and so words."""
        return self.path.startswith("pretrain/")


def _video(
    size: str, data: str, parameters_m: float, paper: str, steps: int = 100_000
) -> OfficialCheckpoint:
    shared = size == "ma-medium"
    model = "medium" if shared else size
    how = "agnostic" if shared else "specific"
    return OfficialCheckpoint(
        name=f"vatt-{size}-{data}",
        path=f"finetune/vit_{model}/{data}_modality_{how}_pretrain/ckpt-{steps}",
        kind=f"video classifier, {_DATA[data]}",
        size=f"{model.title()}, of the shared backbone" if shared else size.title(),
        parameters_m=parameters_m,
        paper=paper,
    )


def _audio(
    name: str, folder: str, size: str, parameters_m: float, paper: str
) -> OfficialCheckpoint:
    return OfficialCheckpoint(
        name=name,
        path=f"finetune/{folder}/ckpt-50000",
        kind="audio classifier, AudioSet",
        size=size,
        parameters_m=parameters_m,
        paper=paper,
    )


def _pretrained(
    name: str, folder: str, size: str, parameters_m: float, paper: str = ""
) -> OfficialCheckpoint:
    return OfficialCheckpoint(
        name=name,
        path=f"pretrain/{folder}/ckpt-500000",
        kind="pre-trained, both common spaces",
        size=size,
        parameters_m=parameters_m,
        paper=paper or "no retrieval number in the paper",
    )


_DATA = {
    "k400": "Kinetics-400",
    "k600": "Kinetics-600",
    "k700": "Kinetics-700",
    "mit": "Moments in Time",
}
CHECKPOINTS = {
    one.name: one
    for one in (
        _pretrained("vatt-bbs", "tx_fac_bbs", "Base-Base-Small", 213.5),
        _pretrained(
            "vatt-mbs", "tx_fac_mbs", "Medium-Base-Small", 280.6,
            "YouCook2 R@10 45.5, MedR 13; MSR-VTT R@10 29.7, MedR 49 (Table 7)",
        ),
        _pretrained("vatt-lbs", "tx_fac_lbs", "Large-Base-Small", 431.7),
        _pretrained(
            "vatt-ma-medium", "ut_fac_medium", "Medium, shared backbone", 182.7,
            "YouCook2 R@10 40.6, MedR 17; MSR-VTT R@10 23.6, MedR 67 (Table 7)",
        ),
        _video("base", "k400", 87.8, "top-1 79.6, top-5 94.9 (Table 2)"),
        _video("medium", "k400", 154.8, "top-1 81.1, top-5 95.6 (Table 2)"),
        _video("large", "k400", 305.9, "top-1 82.1, top-5 95.5 (Table 2)"),
        _video("ma-medium", "k400", 156.9, "top-1 79.9, top-5 94.9 (Table 2)"),
        _video("base", "k600", 87.9, "top-1 80.5, top-5 95.5 (Table 3)"),
        _video("medium", "k600", 155.0, "top-1 82.4, top-5 96.1 (Table 3)", steps=90_000),
        _video("large", "k600", 306.1, "top-1 83.6, top-5 96.6 (Table 3)"),
        _video("ma-medium", "k600", 157.1, "top-1 80.8, top-5 95.5 (Table 3)"),
        _video("large", "k700", 306.2, "top-1 72.7, top-5 90.5 (official README)"),
        _video("base", "mit", 87.7, "top-1 38.7, top-5 67.5 (Table 4)", steps=150_000),
        _video("medium", "mit", 154.7, "top-1 39.5, top-5 68.2 (Table 4)", steps=150_000),
        _video("large", "mit", 305.8, "top-1 41.1, top-5 67.7 (Table 4)", steps=150_000),
        _video("ma-medium", "mit", 156.8, "top-1 37.8, top-5 65.9 (Table 4)", steps=150_000),
        _audio(
            "vatt-base-audioset", "wat_base/audioset_modality_specific_pretrain", "Base", 86.5,
            "mAP 39.4, AUC 97.1, d-prime 2.895 (Table 5)",
        ),
        _audio(
            "vatt-ma-medium-audioset", "wat_medium/audioset_modality_agnostic_pretrain",
            "Medium, of the shared backbone", 155.2,
            "mAP 39.3, AUC 97.0, d-prime 2.884 (Table 5)",
        ),
    )
}  # fmt: skip


def download(url: str, path: Path, progress: Callable[[int, int], None]) -> None:
    """Fetch a file; one that was interrupted goes on where it stopped.

    What has come so far is `<path>.part`. The whole file is compared with the CRC-32C that the
    server says (x-goog-hash) before it gets its name.

    Args:
        url: where from.
        path: where to; what is there already is left as it is.
        progress: is told the bytes that are there, and those of the whole file.

    Raises:
        ConversionError: the server cannot be reached, refuses, says no checksum, or the bytes are
            others; then they are removed.
    """
    if path.is_file():
        return
    part = path.with_name(f"{path.name}.part")
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            if have and answer.status != 206:
                have = 0  # the server sends all of it again
            expected = checksum_of(answer.headers, url)
            total = have + int(answer.headers["Content-Length"])
            with part.open("ab" if have else "wb") as file:
                while block := answer.read(_BLOCK):
                    file.write(block)
                    progress(file.tell(), total)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # 416: nothing is missing
            raise ConversionError(
                f"{url}: the server answered {error.code} {error.reason}; look at the address"
            ) from error
        expected, total = checksum_of(error.headers, url), have
    except OSError as error:  # URLError and time-outs are such
        raise ConversionError(
            f"{url}: {error}; the same command goes on from {part.name}"
        ) from error
    if part.stat().st_size < total:
        raise ConversionError(
            f"{url}: the connection ended after {part.stat().st_size:,} of {total:,} bytes; the "
            f"same command goes on from there"
        )
    found = crc32c_of(part)
    if found != expected:
        part.unlink()
        raise ConversionError(
            f"{url}: found the CRC-32C {found}, expected {expected} as the server says; the file "
            "was removed: run the command again"
        )
    put_in_place(part, path)


def checksum_of(headers: Message, url: str) -> str:
    """The CRC-32C in the headers of Google's storage, in base64.

    Raises:
        ConversionError: there is none.
    """
    for line in headers.get_all("x-goog-hash") or ():
        for item in line.split(","):
            name, _, value = item.strip().partition("=")
            if name == "crc32c":
                return value
    raise ConversionError(
        f"{url}: the server says no CRC-32C (header x-goog-hash), so the file cannot be checked"
    )


def crc32c_of(path: Path) -> str:
    """As Google's storage writes it: base64 of the four bytes, the highest first."""
    found = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            found = google_crc32c.extend(found, block)
    return base64.b64encode(found.to_bytes(4, "big")).decode()


def take_words(archive: Path, path: Path) -> None:
    """Take the official word list out of `misc_data.tgz`; nothing else is unpacked.

    Raises:
        ConversionError: the archive is damaged, or has no word list.
    """
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                if member.isfile() and Path(member.name).name == WORDS:
                    file = tar.extractfile(member)
                    assert file is not None
                    path.write_bytes(file.read())
                    return
    except (OSError, tarfile.TarError, EOFError) as error:
        raise ConversionError(f"{archive}: cannot be read: {error}; remove it") from error
    raise ConversionError(f"{archive}: has no {WORDS}; give the word list by --vocabulary FILE")
