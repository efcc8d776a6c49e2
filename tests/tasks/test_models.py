"""`vatt models`: official checkpoints from a local server: resumed, checked, converted."""

import base64
import io
import json
import tarfile
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import google_crc32c
import pytest
import torch

import vatt
from tests.parity.recordings import FOLDER
from vatt.cli.main import main
from vatt.convert import official
from vatt.convert.plan import plan
from vatt.errors import ConversionError
from vatt.tasks import models

PREFIX = FOLDER / "tx_fac_spectrogram" / "ckpt-5"
NAME = "vatt-mbs"


class Storage(ThreadingHTTPServer):
    """As Google's storage answers. `cut`: where the next answer ends; `lies`: in the checksum."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.ranges: list[str | None] = []
        self.cut: int | None = None
        self.lies = False
        self.silent = False
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Storage

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        content = self.server.files.get(self.path.lstrip("/"))
        if content is None:
            self.send_error(404)
            return
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        first = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        self.send_response(416 if first >= len(content) else 206 if asked else 200)
        digest = base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()
        if not self.server.silent:
            self.send_header("x-goog-hash", f"crc32c={'AAAAAA==' if self.server.lies else digest}")
            self.send_header("x-goog-hash", "md5=not+asked+for==")
        self.send_header("Content-Length", str(len(content[first:])))
        self.end_headers()
        end, self.server.cut = self.server.cut, None
        self.wfile.write(content[first:end])


@pytest.fixture
def storage():
    server = Storage()
    path = official.CHECKPOINTS[NAME].path
    for part in official.PARTS:
        server.files[path + part] = PREFIX.with_name(PREFIX.name + part).read_bytes()
    words, packed = b"<pad>\n<unk>\nleft\n", io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name in ("../../outside.txt", "misc/howto100m_en.txt"):
            about = tarfile.TarInfo(name)
            about.size = len(words)
            tar.addfile(about, io.BytesIO(words))
    server.files[official.VOCABULARY] = packed.getvalue()
    yield server
    server.shutdown()
    server.server_close()


def test_the_list_has_the_19_checkpoints_and_needs_no_network(monkeypatch, capsys):
    monkeypatch.setattr("urllib.request.urlopen", None)
    assert main(["models", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["checkpoints"]
    assert len(rows) == len({row["name"] for row in rows}) == 19
    assert len({one.path for one in official.CHECKPOINTS.values()}) == 19
    assert main(["models", "get", "vatt-huge"]) == 2
    assert "expected one of vatt-bbs" in " ".join(capsys.readouterr().err.split())


def test_one_is_downloaded_resumed_checked_and_converted(storage, tmp_path, monkeypatch):
    heads = {"video": 16, "audio": 12}  # of this small one; the published have 64
    monkeypatch.setattr(models, "plan", partial(plan, head_widths=heads))
    out = tmp_path / "a" / "mbs"
    config = models.ModelsConfig(action="get", name=NAME, out=out, base_url=storage.url)
    storage.cut = 1000
    with pytest.raises(ConversionError, match="goes on from there"):
        models.run(config)
    assert not out.exists()
    assert models.run(config).out == out
    assert "bytes=1000-" in storage.ranges
    model = vatt.load(out, "cpu")
    assert model.encode_text(["left"]).unknown.tolist() == [0]
    assert torch.isfinite(model.encode_text(["left"]).vt).all()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["mbs"]  # one is kept
    assert not (tmp_path.parent / "outside.txt").exists()
    with pytest.raises(ConversionError, match="is there already"):
        models.run(config)


def test_bytes_that_are_not_what_the_server_says_are_removed(storage, tmp_path):
    url = f"{storage.url}/{official.VOCABULARY}"
    path, nothing = tmp_path / "x.tgz", lambda *_: None
    storage.lies = True
    with pytest.raises(ConversionError, match="expected AAAAAA== as the server says"):
        official.download(url, path, nothing)
    assert not list(tmp_path.iterdir())
    storage.lies, storage.silent = False, True
    with pytest.raises(ConversionError, match="says no CRC-32C"):
        official.download(url, path, nothing)
    storage.silent = False
    path.with_name("x.tgz.part").write_bytes(storage.files[official.VOCABULARY])
    official.download(url, path, nothing)  # killed just before it got its name
    assert path.read_bytes() == storage.files[official.VOCABULARY]
    with pytest.raises(ConversionError, match="answered 404"):
        official.download(f"{storage.url}/absent", tmp_path / "y", nothing)
    with pytest.raises(ConversionError, match=r"goes on from y\.part"):
        official.download("http://127.0.0.1:9/y", tmp_path / "y", nothing)
