"""A Hub on localhost: of its HTTP API what huggingface_hub needs to make, write and read a model's repository.

Written after what the client sends and reads (its _commit_api.py, lfs.py, hf_api.py, file_download.py). Not the Hub
itself: it has no Xet storage, checks no YAML, and keeps one branch.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_fake"


@dataclass
class FakeHub:
    """Repositories by id, each a mapping from paths to bytes; and what tests switch on."""

    url: str = ""
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    gated: set[str] = field(default_factory=set)  # nobody was let in
    read_only: set[str] = field(default_factory=set)
    large: dict[str, bytes] = field(default_factory=dict)  # LFS objects by their SHA-256
    commits: list[tuple[str, dict[str, Any]]] = field(default_factory=list)  # repository, header

    def sha(self, repo: str) -> str:
        return hashlib.sha1(repr(sorted(self.repositories[repo].items())).encode()).hexdigest()


class Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, code: int, content: Any = b"", **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def refused(self, repo: str, write: bool) -> bool:
        """Whether the request was answered with what forbids it."""
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if write and not known:
            self.answer(401, {"error": "Invalid username or password."})
        elif write and repo in self.hub.read_only:
            self.answer(403, {"error": "You don't have the rights"}, X_Error_Message="You don't have the rights")
        elif repo in self.hub.gated:
            self.answer(401, X_Error_Code="GatedRepo", X_Error_Message="Access to this repository is restricted")
        elif repo not in self.hub.repositories or (repo in self.hub.private and not known):
            self.answer(404, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
        else:
            return False
        return True

    def do_GET(self) -> None:
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/\w+)?", self.path.split("?")[0]):
            if not self.refused(found[1], write=False):
                names = [{"rfilename": name} for name in self.hub.repositories[found[1]]]
                head = {"id": found[1], "sha": self.hub.sha(found[1]), "private": found[1] in self.hub.private}
                self.answer(200, head | {"siblings": names})
        elif found := re.match(r"/api/models/([^/]+/[^/]+)/tree/", self.path):
            if not self.refused(found[1], write=False):
                files = self.hub.repositories[found[1]].items()
                self.answer(200, [{"type": "file", "path": n, "size": len(d), "oid": "0"} for n, d in files])
        elif found := re.match(r"/([^/]+/[^/]+)/resolve/[^/]+/([^?]+)", self.path):
            if not self.refused(found[1], write=False):
                data = self.hub.repositories[found[1]].get(found[2])
                if data is None:
                    return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=self.hub.sha(found[1]))
                etag = f'"{hashlib.sha256(data).hexdigest()}"'
                self.answer(200, data, ETag=etag, X_Repo_Commit=self.hub.sha(found[1]))
        else:
            self.answer(404)

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        if size := self.headers["Content-Length"]:
            data = self.rfile.read(int(size))
        else:  # in chunks, each with its size and an empty line
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        self.hub.large[hashlib.sha256(data).hexdigest()] = data
        self.answer(200)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path = self.path.split("?")[0]
        if path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        if path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked['organization']}/{asked['name']}"
            there = repo in self.hub.repositories
            self.hub.repositories.setdefault(repo, {})
            if self.refused(repo, write=True):
                return self.hub.repositories.pop(repo) and None if not there else None
            if asked.get("visibility") == "private" and not there:
                self.hub.private.add(repo)
            return self.answer(409 if there else 200, {"url": f"{self.hub.url}/{repo}"})
        found = re.match(r"(?:/api/models)?/([^/]+/[^/]+?)(?:\.git/info/lfs)?/(preupload|objects|commit)/", path)
        if not found or self.refused(found[1], write=True):
            return None if found else self.answer(404)
        getattr(self, found[2])(found[1], body)

    def preupload(self, _repo: str, body: bytes) -> None:
        names = [entry["path"] for entry in json.loads(body)["files"]]
        modes = {name: "lfs" if name.endswith(".safetensors") else "regular" for name in names}
        self.answer(200, {"files": [{"path": n, "uploadMode": m, "shouldIgnore": False} for n, m in modes.items()]})

    def objects(self, _repo: str, body: bytes) -> None:
        wanted = [entry for entry in json.loads(body)["objects"] if entry["oid"] not in self.hub.large]
        put = {"upload": {"href": f"{self.hub.url}/upload"}}
        self.answer(200, {"transfer": "basic", "objects": [{**entry, "actions": put} for entry in wanted]})

    def commit(self, repo: str, body: bytes) -> None:
        files, lines = self.hub.repositories[repo], [json.loads(line) for line in body.splitlines()]
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
            else:
                del files[value["path"]]
        self.hub.commits.append((repo, lines[0]["value"]))
        address = f"{self.hub.url}/{repo}"
        self.answer(
            200,
            {"commitUrl": f"{address}/commit/1", "commitOid": "1", "pullRequestUrl": f"{address}/discussions/1"},
        )


@contextmanager
def running() -> Iterator[FakeHub]:
    """A fake Hub at a free port of localhost."""
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
