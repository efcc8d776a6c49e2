"""The server: what it answers, and to whom."""

from __future__ import annotations

import os
import shutil
import wave
from pathlib import Path

import numpy as np
import pytest

for package in ("lancedb", "fastapi", "httpx"):
    pytest.importorskip(package, reason='needs the extras "serve" and "dev"')

from fastapi.testclient import TestClient  # noqa: E402

from tests.serve.film_library import film_library  # noqa: E402
from vatt.library.index_place import IndexPlace  # noqa: E402
from vatt.library.index_writer import index_writer  # noqa: E402
from vatt.library.search import open_index  # noqa: E402
from vatt.serve.app import Server, ServerSettings, make_app  # noqa: E402

TOKEN = "a-token-of-some-length"


def client_of(library, cache: Path, **changes) -> TestClient:
    values = {
        "hosts": ("localhost",),
        "token": None,
        "cache": cache,
        "copies_bytes": 10**8,
        "upload_bytes": 10**6,
        "workers": 1,
    } | changes
    return TestClient(make_app(library, ServerSettings(**values)), base_url="http://localhost:8000")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return film_library(tmp_path_factory.mktemp("serve"))


@pytest.fixture(scope="module")
def client(library, tmp_path_factory):
    """Without workers that get ready: no test of these asks them for something."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Server, "_get_ready", lambda _: None)
        with client_of(library, tmp_path_factory.mktemp("cache")) as client:
            yield client


@pytest.fixture
def film(library, monkeypatch):
    """The id of a film that is known to play."""

    async def looked(self, file_id):
        return {"plays": "video/mp4"}

    monkeypatch.setattr(Server, "file", looked)
    return next(one for one in library.files() if one.title == "plays.mp4")


def test_a_search_answers_with_moments_and_names_but_no_paths(client, library):
    answer = client.get("/api/search", params={"q": "green door", "top": 3})
    assert answer.status_code == 200
    found = answer.json()
    assert sum(len(hit["clips"]) for hit in found["data"]) == 3
    assert found["data"][0]["file"] in {Path(one.path).name for one in library.files()}
    assert str(Path(library.files()[0].path).parent) not in answer.text
    assert client.get("/api/library").json()["files"] == 3


@pytest.mark.parametrize(
    ("asked", "status", "words"),
    [
        ({"q": "blorb"}, 400, "knows none of these words"),
        ({}, 400, "nothing to search for"),
        ({"q": "x" * 501}, 422, "q: "),
        ({"q": "x", "top": 0}, 422, "top: "),
        ({"seen": "no:1"}, 400, "no file 'no'"),
        ({"q": "x", "within": "*.wmv"}, 400, "found no file of the index"),
    ],
)
def test_what_is_wrong_with_a_search_is_said(client, library, asked, status, words):
    answer = client.get("/api/search", params=asked)
    assert answer.status_code == status
    assert words in answer.json()["error"]
    assert str(library.place) not in answer.text


def test_the_index_is_opened_anew_when_it_was_written_while_it_is_served(
    library, tmp_path, monkeypatch
):
    monkeypatch.setattr(Server, "_get_ready", lambda _: None)
    copy = shutil.copytree(library.place.folder, tmp_path / "index")
    gone = library.files()[0]
    with client_of(open_index(copy, device="cpu"), tmp_path / "cache") as client:
        assert client.get("/api/search", params={"q": "green door"}).status_code == 200
        with index_writer(IndexPlace(copy), library.manifest) as writer:
            writer.drop([gone.file_id])
            assert client.get("/api/library").json()["files"] == 2  # also while it is written
        assert client.get("/api/library").json()["files"] == 2
        found = client.get("/api/search", params={"q": "green door"}).json()
        assert gone.file_id not in {hit["video_id"] for hit in found["data"]}
        assert client.get(f"/media/{gone.file_id}").status_code == 404
        (copy / "manifest.json").write_text("{")  # damaged: the index that is open still answers
        assert client.get("/api/library").json()["files"] == 2


def test_a_film_is_sent_whole_and_in_ranges(client, film):
    content, address = Path(film.path).read_bytes(), f"/media/{film.file_id}"
    whole = client.get(address)
    assert (whole.status_code, whole.content) == (200, content)
    assert whole.headers["content-type"] == "video/mp4"
    assert whole.headers["accept-ranges"] == "bytes"
    size = len(content)

    def ranged(value: str, **more: str):
        return client.get(address, headers={"range": value} | more)

    for asked, start, end in (("0-0", 0, 1), ("-100", size - 100, size), ("10-", 10, size)):
        answer = ranged(f"bytes={asked}")
        assert (answer.status_code, answer.content) == (206, content[start:end])
        assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
    past = ranged(f"bytes={size}-")
    assert (past.status_code, past.headers["content-range"]) == (416, f"bytes */{size}")
    several = ranged("bytes=0-1,4-5")
    assert several.status_code == 206
    assert several.headers["content-type"].startswith("multipart/byteranges")
    assert int(several.headers["content-length"]) == len(several.content)
    assert content[4:6] in several.content
    assert ranged("items=1-2").status_code == 200
    assert ranged("bytes=" + "0-0," * 2000).content == content
    tag = whole.headers["etag"]
    assert ranged("bytes=0-0", **{"if-range": tag}).status_code == 206
    assert ranged("bytes=0-0", **{"if-range": '"old"'}).status_code == 200
    assert client.head(address).headers["content-length"] == str(size)


def test_only_files_of_the_index_are_sent_and_only_as_they_were(client, film, library):
    for name in ("nothing", "../../etc/passwd", "%2e%2e%2fetc%2fpasswd", film.path.strip("/")):
        assert client.get(f"/media/{name}").status_code == 404
    for page in ("/static/token.html", "/static/..%2fapp.py", "/docs", "/openapi.json"):
        assert client.get(page).status_code == 404
    assert client.get(f"/strips/{film.file_id}/0-999999999-6.jpg").status_code == 404
    assert client.get(f"/strips/{film.file_id}/0-100-99.jpg").status_code == 404
    before = Path(film.path).stat()
    os.utime(film.path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    try:
        answer = client.get(f"/media/{film.file_id}")
        assert answer.status_code == 410
        assert "changed since it was embedded" in answer.json()["error"]
    finally:
        os.utime(film.path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "localhost"}, 200),
        ({"host": "LOCALHOST:1234"}, 200),
        ({"host": "evil.example"}, 421),
        ({"host": "localhost.evil.example"}, 421),
        ({"host": "evil@localhost"}, 421),
        ({"host": "localhost/path"}, 421),
        ({"host": "localhost:99999"}, 421),
        ({"host": ""}, 421),
        ({"origin": "http://localhost:8000"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "file://"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403),
        ({"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 200),
    ],
)
def test_other_names_and_other_sites_are_refused(client, headers, status):
    answer = client.get("/", headers=headers)
    assert answer.status_code == status
    policy = answer.headers["content-security-policy"]  # also of what is refused
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_without_the_token_nothing_is_answered(library, tmp_path, monkeypatch):
    monkeypatch.setattr(Server, "_get_ready", lambda _: None)
    with client_of(library, tmp_path, token=TOKEN) as client:
        for address in ("/", "/api/library", "/api/search?q=x", "/static/page.js"):
            assert client.get(address).status_code == 401
        asked = client.get("/", headers={"accept": "text/html"})
        assert "asks for a token" in asked.text
        assert client.get("/?token=wrong", follow_redirects=False).status_code == 401
        bearer = {"authorization": f"Bearer {TOKEN}"}
        assert client.get("/api/library", headers=bearer).status_code == 200
        opened = client.get(f"/?q=door&token={TOKEN}", follow_redirects=False)
        assert (opened.status_code, opened.headers["location"]) == (303, "/?q=door")
        assert "httponly" in opened.headers["set-cookie"].lower()
        assert client.get("/api/library").status_code == 200  # by the cookie


def test_uploads_are_bounded(client):
    def post(content, **headers: str):
        return client.post("/api/search", content=content, headers=headers)

    assert post(b"x" * (10**6 + 1)).status_code == 413
    assert post(b"x" * 10**5 for _ in range(11)).status_code == 413  # without a length
    assert post(b"x", origin="http://evil.example").status_code == 403


@pytest.mark.slow
def test_workers_make_strips_copies_and_read_uploads(library, tmp_path):
    with client_of(library, tmp_path, workers=2) as client:
        ids = {one.title: one.file_id for one in library.files()}
        plays, other = ids["plays.mp4"], ids["does not play.avi"]
        assert client.get(f"/api/files/{plays}").json()["plays"] == "video/mp4"
        assert client.get(f"/api/files/{other}").json()["plays"] is None
        for film in (plays, other):
            strip = client.get(f"/strips/{film}/2000-6000-4.jpg")
            assert (strip.status_code, strip.headers["content-type"]) == (200, "image/jpeg")
        while (copy := client.post(f"/api/copies/{other}/0").json())["state"] == "making":
            pass
        assert copy["state"] == "ready", copy
        made = client.get(f"/copies/{other}/0.mp4", headers={"range": "bytes=4-7"})
        assert (made.status_code, made.content) == (206, b"ftyp")
        assert client.get(f"/copies/{other}/1.mp4").status_code == 404
        sound = tmp_path / "knock.wav"
        with wave.open(str(sound), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            noise = np.random.default_rng(0).integers(-9000, 9000, 16000)
            file.writeframes(noise.astype("<i2").tobytes())
        found = client.post("/api/search", params={"name": "knock.wav"}, content=sound.read_bytes())
        assert found.status_code == 200, found.text
        titles = {hit["title"] for hit in found.json()["data"]}
        assert titles == {"plays.mp4", "does not play.avi"}  # nothing is heard in the third
        film = Path(library.file(plays).path).read_bytes()
        assert client.post("/api/search", content=film).status_code == 200
        broken = client.post("/api/search?name=x.mp4", content=b"no media at all" * 100)
        assert broken.status_code == 400
        assert broken.json()["error"].startswith("x.mp4: cannot be opened")
        drawn = client.get("/api/map").json()
        while drawn["state"] == "making":
            drawn = client.get("/api/map").json()
        assert len(drawn["points"]) == 30
        assert np.ptp(np.array(drawn["points"])[:, :2]) <= 30
