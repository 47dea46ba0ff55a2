"""A stand-in for the Hugging Face hub: a real HTTP server that speaks what `datasets` and
`huggingface_hub` ask, over files that a test makes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

OTHER_COMMIT = "c0ffee" + 34 * "0"


@dataclass
class Repo:
    """A data set: its commit, its files, and what is wrong with it."""

    files: dict[str, bytes]
    commit: str = OTHER_COMMIT
    is_gated: bool = False
    truncated: set[str] = field(default_factory=set)
    """Files whose transfers always break off half way."""
    corrupt: set[str] = field(default_factory=set)
    """Files of which another content of the same length comes than the checksum says."""
    status: int = 200
    """Of every answer, if not 200."""
    file_status: int = 200
    """Of the files but the README, likewise."""

    def entry(self, path: str) -> dict:
        content = self.files[path]
        entry = {"type": "file", "path": path, "size": len(content), "oid": git_hash(content)}
        if is_lfs(path):
            sha256 = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 134}
        return entry


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def directory(path: str) -> dict:
    return {"type": "directory", "path": path, "oid": git_hash(path.encode()), "size": 0}


def is_lfs(path: str) -> bool:
    return path.endswith(".parquet")


class Hub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, Repo] = {}
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.respond()

    def do_HEAD(self):
        self.respond()

    def do_POST(self):
        self.respond()

    def respond(self):
        self.server.requests.append(f"{self.command} {self.path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if parts[:2] == ["api", "datasets"] and len(parts) >= 4:
            self.api("/".join(parts[2:4]), parts[4:], body)
        elif parts[0] == "datasets" and len(parts) > 4 and parts[3] == "resolve":
            self.resolve("/".join(parts[1:3]), parts[4], "/".join(parts[5:]))
        else:
            self.fail(404, "EntryNotFound")

    def repo(self, name: str, revision: str) -> Repo | None:
        repo = self.server.repos.get(name)
        if repo is None:
            self.fail(401, "RepoNotFound")  # The hub does not tell missing from private.
        elif repo.status != 200:
            self.fail(repo.status, "")
        elif repo.is_gated and "Bearer hf_good" not in self.headers.get("Authorization", ""):
            self.fail(401, "GatedRepo")
        elif revision not in ("main", repo.commit):
            self.fail(404, "RevisionNotFound")
        else:
            return repo
        return None

    def api(self, name: str, rest: list[str], body: bytes):
        revision = rest[1] if len(rest) > 1 else "main"
        repo = self.repo(name, revision)
        if repo is None:
            return
        if not rest or rest[0] == "revision":
            siblings = [{"rfilename": path} for path in repo.files]
            self.send({"id": name, "sha": repo.commit, "siblings": siblings, "tags": []})
        elif rest[0] == "tree":
            found = self.tree(repo, "/".join(rest[2:]), "recursive=true" in self.path.lower())
            self.send(found) if found else self.fail(404, "EntryNotFound")
        elif rest[0] == "paths-info":
            self.send(self.paths_info(repo, body))
        else:
            self.fail(404, "EntryNotFound")

    def tree(self, repo: Repo, folder: str, is_recursive: bool) -> list[dict]:
        start = f"{folder}/" if folder else ""
        found = {}
        for path in repo.files:
            if path.startswith(start):
                child, _, rest = path.removeprefix(start).partition("/")
                if not rest or is_recursive:
                    found[path] = repo.entry(path)
                else:
                    found[start + child] = directory(start + child)
        return list(found.values())

    def paths_info(self, repo: Repo, body: bytes) -> list[dict]:
        is_json = "json" in self.headers.get("Content-Type", "")
        paths = json.loads(body)["paths"] if is_json else parse_qs(body.decode())["paths"]
        found = [repo.entry(path) for path in paths if path in repo.files]
        for path in paths:
            if any(file.startswith(f"{path}/") for file in repo.files):
                found.append(directory(path))
        return found

    def resolve(self, name: str, revision: str, path: str):
        repo = self.repo(name, revision)
        if repo is None:
            return
        if path not in repo.files:
            self.fail(404, "EntryNotFound", {"X-Repo-Commit": repo.commit})
            return
        if path != "README.md" and repo.file_status != 200:
            self.fail(repo.file_status, "")
            return
        content, entry = repo.files[path], repo.entry(path)
        etag = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
        if path in repo.corrupt:
            content = content.replace(b"a", b"b") if not is_lfs(path) else content[::-1]
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": repo.commit, "Accept-Ranges": "bytes"}
        if "lfs" in entry:
            headers |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(content))}
        start, status = 0, 200
        if "Range" in self.headers:
            first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
            start, status = int(first), 206
            stop = int(last) + 1 if last else len(content)
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
            content = content[start:stop]
        if path in repo.truncated:
            self.send_bytes(content, status, headers, keep=len(content) // 2)
        else:
            self.send_bytes(content, status, headers)

    def send(self, content):
        headers = {"Content-Type": "application/json"}
        self.send_bytes(json.dumps(content).encode(), 200, headers)

    def fail(self, status: int, code: str, headers: dict[str, str] | None = None):
        extra = {"X-Error-Code": code, "X-Error-Message": code} if code else {}
        self.send_bytes(b"{}", status, extra | (headers or {}))

    def send_bytes(self, body: bytes, status: int, headers: dict[str, str], keep: int = -1):
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body if keep < 0 else body[:keep])
        if keep >= 0:
            self.close_connection = True


@pytest.fixture
def hub() -> Iterator[Hub]:
    """An empty hub; put data sets into its `repos`."""
    server = Hub()
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def jsonl(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(rows: list[dict]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


def card(configs: dict[str, dict[str, str]]) -> bytes:
    """A README whose header says which file is which config and split."""
    entries = [
        {
            "config_name": config,
            "data_files": [{"split": split, "path": path} for split, path in splits.items()],
        }
        for config, splits in configs.items()
    ]
    return f"---\nconfigs: {json.dumps(entries)}\n---\n# A data set\n".encode()


@pytest.fixture
def hub_opo(tmp_path: Path, hub: Hub):
    """A real `opo` process whose hub is ours, with caches of its own."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "OPO_"))}
        places = {
            "HF_HOME": str(tmp_path / "hf"),
            "HF_ENDPOINT": hub.url,
            "OPO_CACHE": str(tmp_path / "opo"),
        }
        return subprocess.run(
            [sys.executable, "-m", "opo_cli", *arguments],
            cwd=tmp_path,
            env=clean | places | environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run
