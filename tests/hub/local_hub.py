"""The part of the HTTP API of the hub that publishing and downloading a model need, over a real socket, in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
import yaml
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

TOKEN = "hf_local_token_of_the_tests"
LARGE = 10_000  # size in bytes from which a file is uploaded through LFS; the real hub has more rules


@dataclass
class Repository:
    """A repository on the hub: content by path and branch, and the files uploaded through LFS."""

    private: bool
    branches: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {".gitattributes": b""}})
    lfs: set[str] = field(default_factory=set)
    commits: int = 0


class LocalHub:
    """The repositories and requests; `url` is for HF_ENDPOINT."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.url = ""

    def app(self) -> FastAPI:
        app = FastAPI()
        app.middleware("http")(self._guard)
        app.post("/api/validate-yaml")(self._validate)
        app.post("/api/repos/create")(self._create)
        app.post("/api/models/{user}/{name}/branch/{branch}")(self._branch)
        app.get("/api/models/{user}/{name}")(self._info)
        app.get("/api/models/{user}/{name}/revision/{branch}")(self._info)
        app.get("/api/models/{user}/{name}/tree/{branch}")(self._tree)
        app.post("/api/models/{user}/{name}/preupload/{branch}")(self._preupload)
        app.post("/api/models/{user}/{name}/commit/{branch}")(self._commit)
        app.post("/{user}/{name}.git/info/lfs/objects/batch")(self._batch)
        app.put("/lfs/{oid}")(self._upload)
        app.api_route("/{user}/{name}/resolve/{branch}/{path:path}", methods=["GET", "HEAD"])(self._resolve)
        return app

    async def _guard(self, request: Request, call_next: Any) -> Response:
        self.requests.append(f"{request.method} {request.url.path}")
        if request.method == "POST" and request.headers.get("authorization") != f"Bearer {TOKEN}":
            return JSONResponse({"error": "Invalid username or password."}, 401)
        response: Response = await call_next(request)
        return response

    async def _validate(self, request: Request) -> Any:
        text = (await request.json())["content"]
        head = yaml.safe_load(text.split("---")[1])
        if head["license"] not in ("apache-2.0", "mit", "unknown"):
            fault = {"message": '"license" must be one of the known ones'}
            return JSONResponse({"errors": [fault], "warnings": []}, 400)
        return {"errors": [], "warnings": []}

    async def _create(self, request: Request) -> Any:
        body = await request.json()
        if body["organization"] != "me":
            return JSONResponse({"error": "You don't have the rights to create a model under this namespace"}, 403)
        name = f"{body['organization']}/{body['name']}"
        if name in self.repositories:
            return JSONResponse({"error": "You already created this model repo", "url": f"{self.url}/{name}"}, 409)
        self.repositories[name] = Repository(body.get("visibility") == "private")
        return {"url": f"{self.url}/{name}", "name": name}

    async def _branch(self, user: str, name: str, branch: str) -> Any:
        branches = self.repositories[f"{user}/{name}"].branches
        branches.setdefault(branch, dict(branches["main"]))
        return {}

    async def _info(self, user: str, name: str, branch: str = "main") -> Any:
        repository = self.repositories.get(f"{user}/{name}")
        if repository is None:
            return JSONResponse({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        if branch == sha_of(repository):
            branch = "main"
        if branch not in repository.branches:
            return JSONResponse({"error": "Invalid rev id"}, 404, {"X-Error-Code": "RevisionNotFound"})
        files = [{"rfilename": path} for path in repository.branches[branch]]
        facts = {"id": f"{user}/{name}", "private": repository.private, "sha": sha_of(repository), "siblings": files}
        return facts | {"tags": [], "downloads": 0, "likes": 0}

    async def _tree(self, user: str, name: str, branch: str) -> Any:
        branches = self.repositories[f"{user}/{name}"].branches
        content = branches.get(branch, branches["main"])
        return [{"type": "file", "path": p, "size": len(c), "oid": git_oid(c)} for p, c in content.items()]

    async def _preupload(self, request: Request) -> Any:
        files = (await request.json())["files"]
        modes = [(f["path"], "lfs" if f["size"] >= LARGE else "regular") for f in files]
        return {"files": [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes]}

    async def _batch(self, request: Request) -> Any:
        objects = (await request.json())["objects"]
        actions = [o | {"actions": {"upload": {"href": f"{self.url}/lfs/{o['oid']}"}}} for o in objects]
        return {"transfer": "basic", "objects": actions}

    async def _upload(self, oid: str, request: Request) -> Any:
        content = await request.body()
        if hashlib.sha256(content).hexdigest() != oid:
            return JSONResponse({"error": "checksum"}, 400)
        self.objects[oid] = content
        return {}

    async def _commit(self, user: str, name: str, branch: str, request: Request) -> Any:
        repository = self.repositories[f"{user}/{name}"]
        content = dict(repository.branches[branch])
        for line in (await request.body()).decode().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                content[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                content[value["path"]] = self.objects[value["oid"]]
                repository.lfs.add(value["path"])
            elif entry["key"] == "deletedFile":
                del content[value["path"]]
        repository.branches[branch] = content
        repository.commits += 1
        return {"commitUrl": f"{self.url}/{user}/{name}/commit/{sha_of(repository)}", "commitOid": sha_of(repository)}

    async def _resolve(self, user: str, name: str, branch: str, path: str) -> Response:
        repository = self.repositories[f"{user}/{name}"]
        content = repository.branches.get(branch, repository.branches["main"])[path]
        headers = {"ETag": f'"{git_oid(content)}"', "X-Repo-Commit": sha_of(repository)}
        return Response(content, headers=headers, media_type="application/octet-stream")


def sha_of(repository: Repository) -> str:
    return f"{repository.commits:040x}"


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def serving() -> Iterator[LocalHub]:
    """A local hub on a free port of this machine."""
    hub = LocalHub()
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        hub.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config(hub.app(), log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield hub
        server.should_exit = True
        thread.join(10)
