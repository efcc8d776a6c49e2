"""A hub on this machine: as much of its API as huggingface_hub needs to fetch and push models."""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hub(ThreadingHTTPServer):
    """Repositories in memory: name → revision → file → bytes; `asked` are the requests so far."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, dict[str, dict[str, bytes]]] = {}
        self.uploaded: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.tokens: set[str] = set()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def at(self, name: str, revision: str) -> dict[str, bytes] | None:
        """The files of a branch or commit; None where there is none."""
        branches = self.files.get(name, {})
        commits = {commit_of(files): files for files in branches.values()}
        return branches.get(revision, commits.get(revision))


def commit_of(files: dict[str, bytes]) -> str:
    return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._get()

    def do_GET(self) -> None:
        self._get()

    def _get(self) -> None:
        self._note()
        path = self.path.split("?")[0]
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path):
            name, kind, revision = found[1], found[2], found[3] or "main"
            files = self.server.at(name, revision)
            if files is None:
                known = name in self.server.files
                self._error("RevisionNotFound" if known else "RepoNotFound")
            elif kind == "tree":
                tree = [
                    {"type": "file", "path": p, "size": len(c), "oid": _oid(c)}
                    for p, c in files.items()
                ]
                self._json(tree)
            else:
                siblings = [{"rfilename": path} for path in files]
                self._json({"id": name, "sha": commit_of(files), "siblings": siblings, "tags": []})
            return
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        assert found, self.path
        files = self.server.at(found[1], found[2]) or {}
        if found[3] not in files:
            self._error("EntryNotFound")
            return
        content = files[found[3]]
        headers = {"X-Repo-Commit": commit_of(files), "ETag": f'"{_oid(content)}"'}
        self._send(200, content, headers)

    def do_POST(self) -> None:
        self._note()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            values = json.loads(body)
            name = f"{values.get('organization') or 'owner'}/{values['name']}"
            self.server.files.setdefault(name, {"main": {}})
            self._json({"url": f"{self.server.url}/{name}"})
        elif self.path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = [
                {
                    "path": one["path"],
                    "uploadMode": "lfs" if one["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for one in json.loads(body)["files"]
            ]
            self._json({"files": files})
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.server.url}/put/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            self._json({"transfer": "basic", "objects": objects})
        else:
            self._commit(body)

    def _commit(self, body: bytes) -> None:
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/([^/?]+).*", self.path)
        assert found, self.path
        files = self.server.files[found[1]].setdefault(found[2], {})
        for line in body.splitlines():
            one = json.loads(line)
            value = one["value"]
            if one["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif one["key"] == "lfsFile":
                files[value["path"]] = self.server.uploaded[value["oid"]]
        sha = commit_of(files)
        url = f"{self.server.url}/{found[1]}/commit/{sha}"
        self._json({"success": True, "commitOid": sha, "commitUrl": url, "hookOutput": ""})

    def do_PUT(self) -> None:
        self._note()
        content = b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.uploaded[hashlib.sha256(content).hexdigest()] = content
        self._send(200, b"")

    def _note(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        self.server.tokens.add(self.headers.get("Authorization", ""))

    def _error(self, code: str) -> None:
        self._send(404, b'{"error": "not found"}', {"X-Error-Code": code})

    def _json(self, values: Any) -> None:
        self._send(200, json.dumps(values).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _oid(content: bytes) -> str:
    """As git names a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
