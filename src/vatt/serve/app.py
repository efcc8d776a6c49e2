"""The server: the page, searches, strips of frames, and the files to play, by id alone."""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import ExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Annotated, Any, Literal

from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp

from vatt.errors import VattError
from vatt.library.search import Library
from vatt.library.vector_index import FileEntry
from vatt.media.container import FilePart, MediaSource
from vatt.serve.byte_ranges import RangeNotSatisfiableError, asked_ranges
from vatt.serve.copies import Copies
from vatt.serve.decoding import COPY_S, Job, LookJob, ReadyJob, StripJob, UploadJob, do
from vatt.serve.library_map import library_map
from vatt.serve.safety import Guard, page_file
from vatt.shards.layout import DATASET_FILE
from vatt.shards.read import ShardFolder
from vatt.workers.pool import at_work
from vatt.workers.process import Limits, Lost, WorkerProcess

logger = logging.getLogger(__name__)

STATIC = {
    "index.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_MOST_FRAMES = 12  # of a strip
_STRIPS_BYTES = 64 * 2**20  # kept in memory
_MOST_WAITING = 300  # jobs
_UPLOAD_S = 60.0  # to receive one
_UPLOADS_AT_ONCE = 2
_MEDIA_LIMITS = Limits(seconds=120.0, gigabytes=4.0)
_UPLOAD_LIMITS = Limits(seconds=60.0, gigabytes=6.0)

Words = Annotated[str, Query(max_length=500)]
Id = Annotated[str, Query(max_length=120)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """How the server works.

    hosts: names and addresses under which it may be asked. token: to be shown, None: nobody is
    asked for one. cache: folder for copies. copies_bytes: that they may take. upload_bytes: of one
    upload. workers: processes that decode files of the library.
    """

    hosts: tuple[str, ...]
    token: str | None
    cache: Path
    copies_bytes: int
    upload_bytes: int
    workers: int


class Server:
    """What answers requests; its methods are the routes of `make_app`."""

    def __init__(self, library: Library, settings: ServerSettings) -> None:
        self._library, self._settings = library, settings
        self._written, self._reopening = library.place.written(), Lock()
        self._searching = Lock()  # one at a time: it takes all cores
        self._uploads = 0
        self._strips: OrderedDict[StripJob, bytes] = OrderedDict()
        self._looks: dict[str, str | None] = {}
        self._map: asyncio.Task[dict[str, Any]] | None = None
        self._waiting = 0
        self._folders: dict[Path, tuple[ShardFolder, dict[str, int]]] = {}
        self._start: Callable[[Job], Future[Any]]
        self._start_upload: Callable[[Job], Future[Any]]
        self.copies: Copies

    @asynccontextmanager
    async def running(self, _: FastAPI) -> AsyncIterator[None]:
        """Workers while the server runs. Nothing waits for them, nor for the model, to be ready."""
        with ExitStack() as stack:
            uploads = [WorkerProcess(do, _UPLOAD_LIMITS)]
            media = [WorkerProcess(do, _MEDIA_LIMITS) for _ in range(self._settings.workers)]
            self._start_upload = stack.enter_context(at_work(uploads))
            self._start = stack.enter_context(at_work(media))
            folder = self._settings.cache / "copies"
            self.copies = Copies(folder, self._settings.copies_bytes, self._start)
            opening = asyncio.create_task(asyncio.to_thread(self._get_ready))
            yield
            opening.cancel()
            if self._map is not None:
                self._map.cancel()

    @property
    def library(self) -> Library:
        """The index as it is now: opened anew once it has been written."""
        with self._reopening:
            written = self._library.place.written()
            if written not in (None, self._written):
                try:
                    self._library, self._map = self._library.reopened(), None
                    self._written = written
                    self._strips.clear()  # files may have other frames now
                    self._folders.clear()
                except VattError as error:  # the one that is open still answers
                    logger.warning("%s", error)
            return self._library

    def _get_ready(self) -> None:
        try:
            _ = self.library.encoder
        except VattError as error:  # searches say so again
            logger.warning("%s", error)
        self._start_upload(ReadyJob())

    # ── the page ─────────────────────────────────────────────────────────────────────────────────

    async def static(self, name: str = "index.html") -> Response:
        """A file of the page."""
        if name not in STATIC:
            raise HTTPException(404, "there is no such page")
        return Response(
            page_file(name), media_type=STATIC[name], headers={"cache-control": "no-cache"}
        )

    async def about(self) -> dict[str, Any]:
        """What the library holds."""
        files, manifest = self.library.files(), self.library.manifest
        return {
            "name": Path(str(self.library.place)).name,
            "files": len(files),
            "windows": self.library.num_windows,
            "seconds": sum(one.duration_s for one in files),
            "clip_s": manifest.clip_s,
            "copy_s": COPY_S,
            "has_audio": "audio_va" in manifest.dims and any(one.has_audio for one in files),
            "upload_bytes": self._settings.upload_bytes,
        }

    # ── searching ────────────────────────────────────────────────────────────────────────────────

    async def search(
        self,
        q: Words = "",
        avoid: Annotated[str, Query(alias="not", max_length=500)] = "",
        seen: Id = "",
        heard: Id = "",
        within: Words = "",
        top: Annotated[int, Query(ge=1, le=100)] = 24,
        group_by: Literal["clip", "video"] = "video",
    ) -> dict[str, Any]:
        """Search by words, or by what a window of the index is like."""
        query = _Asked(q, avoid, seen, heard, within, top, group_by)
        return await asyncio.to_thread(self._search, query, None)

    async def search_by_upload(
        self,
        request: Request,
        q: Words = "",
        avoid: Annotated[str, Query(alias="not", max_length=500)] = "",
        seen: Id = "",
        heard: Id = "",
        within: Words = "",
        top: Annotated[int, Query(ge=1, le=100)] = 24,
        group_by: Literal["clip", "video"] = "video",
        kind: Literal["any", "audio"] = "any",
        name: Annotated[str, Query(max_length=200)] = "the file",
    ) -> dict[str, Any]:
        """Search by the file that is the body of the request, and what else is given."""
        query = _Asked(q, avoid, seen, heard, within, top, group_by)
        if self._uploads >= _UPLOADS_AT_ONCE:
            raise HTTPException(429, "other files are being read; try again in a moment")
        self._uploads += 1
        try:
            with tempfile.TemporaryDirectory(prefix="vatt-upload-") as folder:
                path = await self._received(request, Path(folder))
                try:
                    signal = await self._read_upload(path, kind)
                except VattError as error:
                    raise HTTPException(400, str(error).replace(str(path), name)) from error
            return await asyncio.to_thread(self._search, query, signal)
        finally:
            self._uploads -= 1

    async def _received(self, request: Request, folder: Path) -> Path:
        """The body of a request as a file, as far as it is not too large or too slow."""
        most = self._settings.upload_bytes
        too_large = HTTPException(413, f"the file is too large: at most {most / 2**20:.0f} MB")
        if int(request.headers.get("content-length") or 0) > most:
            raise too_large
        content = bytearray()
        try:
            async with asyncio.timeout(_UPLOAD_S):
                async for chunk in request.stream():
                    content += chunk
                    if len(content) > most:
                        raise too_large
        except TimeoutError:
            raise HTTPException(408, f"not received within {_UPLOAD_S:.0f} s") from None
        # JPEG is read by its name; all else by what it is.
        path = folder / ("upload.jpg" if content.startswith(b"\xff\xd8\xff") else "upload")
        await asyncio.to_thread(path.write_bytes, content)
        return path

    async def _read_upload(self, path: Path, kind: str) -> Any:
        encoder = await asyncio.to_thread(lambda: self.library.encoder)
        job = UploadJob(path, kind, encoder.spec, encoder.frame_path)
        return await self._done(job, self._start_upload)

    def _search(self, asked: _Asked, signal: Any) -> dict[str, Any]:
        from vatt.library.query import QueryPart, parse_part

        began = time.monotonic()
        parts: list[QueryPart] = []
        if asked.q.strip():
            parts.append(parse_part("words", asked.q))
        if asked.avoid.strip():
            parts.append(parse_part("words", asked.avoid, sign=-1.0))
        if asked.seen:
            parts.append(QueryPart(kind="seen", value=asked.seen))
        if asked.heard:
            parts.append(QueryPart(kind="heard", value=asked.heard))
        signals = []
        if signal is not None:
            signals = [(QueryPart(kind=signal[0], value="the file"), *signal)]
        library = self.library
        with self._searching:
            try:
                found = library.search(
                    parts,
                    top=asked.top,
                    group_by=asked.group_by,
                    within=asked.within or None,
                    signals=signals,
                )
            except VattError as error:
                said = str(error).removeprefix(f"{library.place}: ")
                raise HTTPException(400, said) from error
        # Where files are on this machine is nobody's business.
        hits = [replace(hit, file=Path(hit.file).name) for hit in found.data]
        took_ms = round((time.monotonic() - began) * 1000)
        return {**asdict(replace(found, data=hits)), "took_ms": took_ms}

    # ── files ────────────────────────────────────────────────────────────────────────────────────

    async def file(self, file_id: str) -> dict[str, Any]:
        """What is known of a file; `plays` is its media type if browsers play it as it is."""
        entry, source = self._file(file_id)
        if not isinstance(source, Path):
            self._looks[file_id] = None  # a part of a shard: it is shown through copies
        if file_id not in self._looks:
            try:
                self._looks[file_id] = await self._done(LookJob(source), self._start)
            except VattError as error:
                raise HTTPException(409, str(error)) from error
        return {
            "video_id": file_id,
            "title": entry.title,
            "file": Path(entry.path).name,
            "duration": entry.duration_s,
            "has_video": entry.width > 0,
            "has_audio": entry.has_audio,
            "plays": self._looks[file_id],
        }

    async def strip(self, file_id: str, start_ms: int, end_ms: int, frames: int) -> Response:
        """Frames of an interval side by side."""
        entry, source = self._file(file_id)
        latest_ms = round(entry.duration_s * 1000)
        if not (0 <= start_ms <= end_ms <= latest_ms + 1000 and 1 <= frames <= _MOST_FRAMES):
            raise HTTPException(404, "there is no such part of the file")
        job = StripJob(source, start_ms / 1000, end_ms / 1000, frames)
        if job not in self._strips:
            try:
                self._strips[job] = await self._done(job, self._start)
            except VattError as error:
                raise HTTPException(409, str(error)) from error
            while sum(map(len, self._strips.values())) > _STRIPS_BYTES:
                self._strips.popitem(last=False)
        self._strips.move_to_end(job)
        headers = {"cache-control": "private, max-age=3600"}
        return Response(self._strips[job], media_type="image/jpeg", headers=headers)

    async def media(self, request: Request, file_id: str) -> Response:
        """A file as it is."""
        _, source = self._file(file_id)
        if not isinstance(source, Path):
            raise HTTPException(404, "it is a part of a shard; ask for a copy")
        looked = self._looks.get(file_id) or (await self.file(file_id))["plays"]
        return _file_response(request, source, looked or "application/octet-stream")

    async def copy_state(self, file_id: str, number: int) -> dict[str, Any]:
        """How far a copy is; it is begun if there is none."""
        entry, source = self._file(file_id)
        if not 0 <= number * COPY_S <= entry.duration_s:
            raise HTTPException(404, "there is no such part of the file")
        state = await asyncio.to_thread(self.copies.state, entry, source, number, begin=True)
        return asdict(state)

    async def copy(self, request: Request, file_id: str, number: int) -> Response:
        """A copy that is ready."""
        entry, _ = self._file(file_id)
        path = self.copies.path(entry, number)
        if not path.is_file():
            raise HTTPException(404, "this copy is not there; ask for it first")
        return _file_response(request, path, "video/mp4")

    async def map(self) -> dict[str, Any]:
        """The map; made in the background when it is first asked for."""
        if self._map is None:
            make = partial(library_map, self.library, self._settings.cache)
            self._map = asyncio.create_task(asyncio.to_thread(make))
        done, _ = await asyncio.wait([self._map], timeout=0.5)
        if not done:
            return {"state": "making"}
        try:
            return {"state": "ready", **self._map.result()}
        except VattError as error:
            self._map = None
            raise HTTPException(409, str(error)) from error

    def _file(self, file_id: str) -> tuple[FileEntry, MediaSource]:
        """A file of the index, and where it is on the disk, as it was embedded."""
        try:
            entry = self.library.file(file_id)
        except VattError:
            raise HTTPException(404, "there is no such file in the index") from None
        shard, _, key = entry.path.rpartition("#")
        try:
            if shard.endswith(".tar") and not Path(entry.path).exists():
                source = self._stored(Path(shard), key)
                is_as_it_was = not isinstance(source, FilePart) or source.size == entry.size
            else:
                source, now = Path(entry.path), Path(entry.path).stat()
                is_as_it_was = (now.st_size, now.st_mtime_ns) == (entry.size, entry.mtime_ns)
        except (OSError, VattError) as error:
            reason = getattr(error, "strerror", None) or "its shards are damaged or gone"
            raise HTTPException(410, f"the file cannot be read: {reason}") from None
        if not is_as_it_was:
            raise HTTPException(
                410, "the file has changed since it was embedded; run `vatt embed` again"
            )
        return entry, source

    def _stored(self, shard: Path, key: str) -> MediaSource:
        """A video in a shard of a prepared folder.

        Raises:
            FileNotFoundError, DataError: it is not there any more.
        """
        folder = next((one for one in shard.parents if (one / DATASET_FILE).is_file()), None)
        if folder is None:
            raise FileNotFoundError(2, "No such file", str(shard))
        if folder not in self._folders:
            data = ShardFolder.open(folder)
            rows = {one: row for row, one in enumerate(data.index["key"].to_pylist())}
            self._folders[folder] = data, rows
        data, rows = self._folders[folder]
        if key not in rows:
            raise FileNotFoundError(2, "No such file", key)
        return data.source(rows[key])

    async def _done(self, job: Job, start: Callable[[Job], Future[Any]]) -> Any:
        """What a worker makes of a job."""
        if self._waiting >= _MOST_WAITING:
            raise HTTPException(503, "too much at once; try again in a moment")
        self._waiting += 1
        try:
            outcome = await asyncio.wrap_future(start(job))
        finally:
            self._waiting -= 1
        if isinstance(outcome, Lost):
            raise HTTPException(409, f"the file cannot be read: {outcome.cause} ({outcome.reason})")
        return outcome


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a search asks for."""

    q: str
    avoid: str
    seen: str
    heard: str
    within: str
    top: int
    group_by: Literal["clip", "video"]


def make_app(library: Library, settings: ServerSettings) -> ASGIApp:
    """The application, guarded; see `safety`."""
    server = Server(library, settings)
    # Its own pages of documentation would load scripts from elsewhere.
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=server.running)
    read = partial(app.api_route, methods=["GET", "HEAD"])
    read("/")(server.static)
    read("/static/{name}")(server.static)
    app.get("/api/library")(server.about)
    app.get("/api/search")(server.search)
    app.post("/api/search")(server.search_by_upload)
    app.get("/api/files/{file_id}")(server.file)
    app.get("/api/map")(server.map)
    app.post("/api/copies/{file_id}/{number:int}")(server.copy_state)
    app.get("/strips/{file_id}/{start_ms:int}-{end_ms:int}-{frames:int}.jpg")(server.strip)
    read("/media/{file_id}")(server.media)
    read("/copies/{file_id}/{number:int}.mp4")(server.copy)
    app.exception_handler(VattError)(_said)
    app.exception_handler(HTTPException)(_said)
    app.exception_handler(RequestValidationError)(_said)
    return Guard(app, hosts=settings.hosts, token=settings.token)


async def _said(_: Request, error: Exception) -> JSONResponse:
    """An error as words that the page shows."""
    if isinstance(error, HTTPException):
        return JSONResponse({"error": error.detail}, error.status_code)
    if isinstance(error, RequestValidationError):
        wrong = error.errors()[0]
        where = ".".join(map(str, wrong["loc"][1:]))
        return JSONResponse({"error": f"{where}: {wrong['msg']}"}, 422)
    return JSONResponse({"error": str(error)}, 400)


def _file_response(request: Request, path: Path, media_type: str) -> Response:
    """A file or the asked ranges of it, which Starlette sends once they are as they should be."""
    headers = {
        "cache-control": "private, no-cache",
        "content-security-policy": "default-src 'none'; sandbox",
    }
    stat = path.stat()
    asked = request.headers.getlist("range")
    if asked and request.method in ("GET", "HEAD"):
        sent = MutableHeaders(scope=request.scope)
        try:
            ranges = asked_ranges(asked[0], stat.st_size) if len(asked) == 1 else []
        except RangeNotSatisfiableError:
            headers["content-range"] = f"bytes */{stat.st_size}"
            return Response(status_code=416, headers=headers)
        del sent["range"]
        if ranges:
            sent["range"] = "bytes=" + ",".join(f"{start}-{end - 1}" for start, end in ranges)
    return FileResponse(path, media_type=media_type, stat_result=stat, headers=headers)
