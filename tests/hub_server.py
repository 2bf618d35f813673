"""Local stand-in for the HTTP API of the Hugging Face hub: repositories, commits and downloads, in memory."""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


@dataclass
class Repository:
    """Files of each branch, and of each commit."""

    private: bool = False
    branches: dict[str, str] = field(default_factory=lambda: {"main": "0" * 40})
    commits: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"0" * 40: {}})

    def commit_of(self, revision: str) -> str | None:
        return self.branches.get(revision, revision if revision in self.commits else None)


class Handler(BaseHTTPRequestHandler):
    repositories: dict[str, Repository]
    protocol_version = "HTTP/1.1"

    def log_message(self, *words: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "validate-yaml"]:
            return self.reply({"errors": [], "warnings": []})
        if parts == ["api", "repos", "create"]:
            return self.create(json.loads(body))
        name, verb, revision = "/".join(parts[2:4]), parts[4], parts[5]
        if (repository := self.repositories.get(name)) is None:
            return self.missing("RepoNotFound", "Repository Not Found")
        if verb == "branch":
            repository.branches.setdefault(revision, repository.branches["main"])
            return self.reply({})
        if verb == "preupload":
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            return self.reply({"files": files})
        assert verb == "commit"
        return self.commit(name, repository, revision, [json.loads(line) for line in body.splitlines()])

    def create(self, asked: dict[str, Any]) -> None:
        name = f"{asked.get('organization') or 'user'}/{asked['name']}"
        there = name in self.repositories
        self.repositories.setdefault(
            name, Repository("private" in (asked.get("visibility"),) or bool(asked.get("private")))
        )
        self.reply({"url": f"http://{self.headers['Host']}/{name}"}, 409 if there else 200)

    def commit(self, name: str, repository: Repository, branch: str, lines: list[dict[str, Any]]) -> None:
        files = dict(repository.commits[repository.branches[branch]])
        for line in lines:
            if line["key"] == "file":
                assert line["value"]["encoding"] == "base64"
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        sha = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        repository.branches[branch], repository.commits[sha] = sha, files
        url = f"http://{self.headers['Host']}/{name}/commit/{sha}"
        self.reply({"success": True, "commitOid": sha, "commitUrl": url, "hookOutput": ""})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        api = parts[0] == "api"
        name = "/".join(parts[2:4] if api else parts[:2])
        if (repository := self.repositories.get(name)) is None:
            return self.missing("RepoNotFound", "Repository Not Found")
        rest = parts[4:] if api else parts[2:]
        sha = repository.commit_of(rest[1] if len(rest) > 1 else "main")
        if sha is None:
            return self.missing("RevisionNotFound", "Revision Not Found")
        files = repository.commits[sha]
        if api and rest and rest[0] == "tree":
            return self.reply(
                [
                    {"type": "file", "path": p, "size": len(c), "oid": hashlib.sha1(c).hexdigest()}
                    for p, c in files.items()
                ]
            )
        if api:
            return self.reply({"id": name, "sha": sha, "siblings": [{"rfilename": path} for path in files]})
        path = "/".join(rest[2:])
        if path not in files:
            return self.missing("EntryNotFound", "Entry not found")
        etag = f'"{hashlib.sha1(files[path]).hexdigest()}"'
        return self.send(
            200, files[path], {"X-Repo-Commit": sha, "ETag": etag, "Content-Type": "application/octet-stream"}
        )

    def missing(self, code: str, message: str) -> None:
        self.send(404, json.dumps({"error": message}).encode(), {"X-Error-Code": code, "X-Error-Message": message})

    def reply(self, content: object, status: int = 200) -> None:
        self.send(status, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@contextmanager
def hub_server() -> Iterator[tuple[str, dict[str, Repository]]]:
    """Its URL, and its repositories by id."""
    repositories: dict[str, Repository] = {}
    handler = type("Repositories", (Handler,), {"repositories": repositories})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", repositories
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
