"""A small Hugging Face Hub for tests: the real client downloads from it and uploads to it. Loopback only.

Standard library and PyYAML. ``with LocalHub(folder) as hub:`` serves at ``hub.url``; ``hub.state`` holds the
repositories, the log of requests, and the faults to inject.
"""

# A handler's method answers and ends, so ``return self.error(...)`` means "answer this and stop".
# ruff: noqa: RET502, RET503, N815, PLR0915

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import shutil
import socket
import struct
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

import yaml

KINDS = {"models": "", "datasets": "datasets/"}


def git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Entry:
    size: int
    sha256: str
    oid: str  # git blob oid (of the pointer for LFS files)
    lfs: bool
    xet: str | None = None


@dataclass
class Repo:
    kind: str
    id: str
    private: bool = False
    gated: str | bool = False
    tokens: set = field(default_factory=set)  # tokens with access when private/gated
    branches: dict = field(default_factory=dict)
    tags: dict = field(default_factory=dict)
    commits: dict = field(default_factory=dict)  # sha -> (parent, msg, time, {path: Entry})


@dataclass
class Fault:
    """Applied to the first `times` requests whose 'METHOD path' matches `match`."""

    match: str
    # status|truncate|badlen|flip|reset|slow|stall|norange|drip|driphead|dripframe|dropheader|setheader|body|hang
    action: str
    times: int = 1
    skip: int = 0
    status: int = 503
    headers: dict = field(default_factory=dict)
    at: int = 0  # byte offset for truncate / flip / reset
    seconds: float = 0.0
    body: bytes = b""


class HubState:
    def __init__(self, root: Path, lfs_threshold=10 * 1024, page=1000):
        self.blobs = Path(root) / "blobs"
        self.blobs.mkdir(parents=True, exist_ok=True)
        self.repos, self.faults, self.log = {}, [], []
        self.renamed = {}  # old id -> new id; requests for the old one are sent on
        self.edit = lambda info: info  # what becomes of every answer about a repository
        self.lock = threading.RLock()
        self.lfs_threshold, self.page = lfs_threshold, page
        self.users = {"hf_test": "tester"}  # token -> user name
        self.xet = False  # True: serve LFS files through Xet, CAS is a local folder
        self.cas = Path(root) / "cas"
        self.cas.mkdir(exist_ok=True)

    def to_xet(self, e):
        """Put a blob into the local CAS with the real hf_xet; return its Xet hash."""
        if e.xet is None:
            import hf_xet

            with self.lock, hf_xet.XetSession().new_upload_commit(endpoint=f"local://{self.cas}") as c:
                h = c.start_upload_file(str(self.blobs / e.sha256), sha256=e.sha256)
            e.xet = h.result().xet_info.hash
        return e.xet

    def from_xet(self, sha256):
        """Find an uploaded Xet file by sha256 in the CAS shards and copy it into blobs.

        The client may be another process, which still holds the lock on the CAS's index. So a copy is read: the index
        itself, links to the rest.
        """
        import hf_xet

        def link(source, target):
            (shutil.copy2 if source.endswith(".redb") else os.link)(source, target)

        def hexof(raw):
            return "".join(f"{x:016x}" for x in struct.unpack("<4Q", raw))

        for shard in (self.cas / "xet/xorbs/shards").glob("*.mdb"):
            raw, pos = shard.read_bytes(), 48
            while raw[pos : pos + 32] != b"\xff" * 32:
                fhash, flags, n = raw[pos : pos + 32], *struct.unpack_from("<II", raw, pos + 32)
                size = sum(struct.unpack_from("<I", raw, pos + 48 * (i + 1) + 36)[0] for i in range(n))
                pos += 48 * (1 + n * (2 if flags >> 31 else 1))
                if flags >> 30 & 1:
                    meta, pos = raw[pos : pos + 32], pos + 48
                    if sha256 in (meta.hex(), hexof(meta)):
                        out = self.blobs / (sha256 + ".tmp")
                        with tempfile.TemporaryDirectory(dir=self.cas.parent) as view:
                            shutil.copytree(self.cas, view, copy_function=link, dirs_exist_ok=True)
                            with hf_xet.XetSession().new_file_download_group(endpoint=f"local://{view}") as g:
                                g.start_download_file(hf_xet.XetFileInfo(hexof(fhash), size), str(out))
                        out.rename(self.blobs / sha256)
                        return True
        return False

    def put(self, data: bytes) -> str:
        sha = hashlib.sha256(data).hexdigest()
        dst = self.blobs / sha
        if not dst.exists():
            dst.write_bytes(data)
        return sha

    def is_lfs(self, path, size):
        return size >= self.lfs_threshold or path.endswith((".safetensors", ".bin", ".onnx", ".pt", ".data"))

    def entry(self, path, data):
        sha, lfs = self.put(data), self.is_lfs(path, len(data)) and len(data) > 0
        ptr = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha}\nsize {len(data)}\n".encode()
        return Entry(len(data), sha, git_oid(ptr if lfs else data), lfs)

    def commit(self, repo, branch, files, msg="commit"):
        with self.lock:
            parent = repo.branches.get(branch)
            body = json.dumps([parent, msg, sorted((p, e.sha256) for p, e in files.items())]).encode()
            sha = hashlib.sha1(body).hexdigest()
            repo.commits[sha] = (parent, msg, time.time(), dict(files))
            repo.branches[branch] = sha
            return sha

    def create(self, rid, kind="models", **kw):
        repo = self.repos[(kind, rid)] = Repo(kind, rid, **kw)
        self.commit(
            repo,
            "main",
            {".gitattributes": self.entry(".gitattributes", b"*.safetensors filter=lfs\n")},
            "initial commit",
        )
        return repo

    def add_folder(self, rid, folder, kind="models", branch="main", msg="import", **kw):
        repo = self.repos.get((kind, rid)) or self.create(rid, kind, **kw)
        base = repo.branches.get(branch) or repo.branches["main"]
        files = dict(repo.commits[base][3])
        for p in sorted(Path(folder).rglob("*")):
            if p.is_symlink() or p.is_file():  # of a link git keeps where it leads to
                rel = p.relative_to(folder).as_posix()
                files[rel] = self.entry(rel, os.readlink(p).encode() if p.is_symlink() else p.read_bytes())
        return self.commit(repo, branch, files, msg)

    def resolve(self, repo, rev):
        if rev in repo.branches:
            return repo.branches[rev]
        if rev in repo.tags:
            return repo.tags[rev]
        if rev.startswith("refs/heads/"):
            return repo.branches.get(rev[11:])
        if re.fullmatch(r"[0-9a-f]{4,40}", rev):
            hits = [c for c in repo.commits if c.startswith(rev)]
            return hits[0] if len(hits) == 1 else None
        return None

    def card(self, files):
        e = files.get("README.md")
        if e is None:
            return {}
        m = re.match(r"---\r?\n(.*?)\r?\n---", (self.blobs / e.sha256).read_text("utf8"), re.S)
        return (yaml.safe_load(m[1]) or {}) if m else {}

    def info(self, repo, sha, blobs=False, siblings=True, config=False):
        _, _, ts, files = repo.commits[sha]
        card = self.card(files)
        iso = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(ts))
        tags = list(card.get("tags") or [])
        for k in ("library_name", "pipeline_tag"):
            if card.get(k) and card[k] not in tags:
                tags.append(card[k])
        if card.get("license"):
            tags.append(f"license:{card['license']}")
        d = {
            "_id": hashlib.md5(repo.id.encode()).hexdigest()[:24],
            "id": repo.id,
            "modelId": repo.id,
            "author": repo.id.split("/")[0] if "/" in repo.id else None,
            "sha": sha,
            "lastModified": iso,
            "createdAt": iso,
            "private": repo.private,
            "gated": repo.gated,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": tags,
            "cardData": card,
        }
        for k in ("library_name", "pipeline_tag"):
            if card.get(k):
                d[k] = card[k]
        if config and "config.json" in files:
            with contextlib.suppress(ValueError, RecursionError):  # as the Hub: a config that is no JSON is left out
                d["config"] = json.loads((self.blobs / files["config.json"].sha256).read_bytes())
        if siblings:
            d["siblings"] = [
                dict(
                    rfilename=p,
                    **(
                        {
                            "size": e.size,
                            "blobId": e.oid,
                            **({"lfs": {"sha256": e.sha256, "size": e.size, "pointerSize": 134}} if e.lfs else {}),
                        }
                        if blobs
                        else {}
                    ),
                )
                for p, e in sorted(files.items())
            ]
        return d


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "localhub", ""
    disable_nagle_algorithm = True
    fault = None  # until a request is read

    def log_message(self, *a):
        pass

    # ---- plumbing -------------------------------------------------------
    @property
    def st(self) -> HubState:
        return self.server.state

    def reply(self, status=200, obj=None, headers=None, body=None, ctype="application/json"):
        body = json.dumps(obj).encode() if body is None else body
        self.send_response(status)
        headers = {"Content-Type": ctype, "Content-Length": str(len(body)), **(headers or {})}
        for k, v in headers.items():
            self.send_header(k, v)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def flush_headers(self):
        f = self.fault
        if f and f.action == "driphead":
            head, self._headers_buffer = b"".join(self._headers_buffer), []
            for i in range(len(head)):
                self.wfile.write(head[i : i + 1])
                self.server.closed.wait(f.seconds)
        super().flush_headers()

    def error(self, status, code=None, msg="", **headers):
        h = {"X-Error-Message": msg} if msg else {}
        if code:
            h["X-Error-Code"] = code
        self.reply(status, {"error": msg}, {**h, **headers})

    def body(self):
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            out = b""
            while n := int(self.rfile.readline().split(b";")[0], 16):
                out += self.rfile.read(n)
                self.rfile.readline()
            self.rfile.readline()
            return out
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def reset(self):
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def take_fault(self):
        with self.st.lock:
            for f in self.st.faults:
                if f.times != 0 and re.search(f.match, f"{self.command} {self.path}"):
                    if f.skip > 0:
                        f.skip -= 1
                        continue
                    f.times -= 1
                    return f
        return None

    def handle_any(self):
        url = urlsplit(self.path)
        self.q = parse_qs(url.query, keep_blank_values=True)
        auth = self.headers.get("Authorization") or ""
        self.token = auth[7:] if auth.startswith("Bearer ") else None
        rec = {
            "method": self.command,
            "path": self.path,
            "host": self.headers.get("Host"),
            "auth": self.token,
            "range": self.headers.get("Range"),
            "ua": self.headers.get("User-Agent"),
            "t": time.time(),
        }
        with self.st.lock:
            self.st.log.append(rec)
        self.fault = f = self.take_fault()
        if f and f.action == "status":
            self.body()
            return self.reply(f.status, {"error": "injected"}, f.headers, body=f.body or None)
        if f and f.action == "hang":
            self.server.closed.wait(f.seconds)
        if f and f.action == "reset" and f.at == 0:
            return self.reset()
        for verbs, rx, fn in ROUTES:
            if self.command in verbs and (m := re.fullmatch(rx, url.path)):
                return fn(self, **{k: unquote(v) if v is not None else v for k, v in m.groupdict().items()})
        self.body()
        self.error(404, None, "Sorry, we can't find the page you are looking for.")

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any

    # ---- access ---------------------------------------------------------
    def repo(self, kind, rid, gated_check=False):
        self.auth_user = self.st.users.get(self.token)
        if self.token and self.auth_user is None:
            self.error(401, None, "Invalid credentials in Authorization header")
            return None
        r = self.st.repos.get((kind, rid))
        if r is None or (r.private and self.token not in r.tokens):
            self.error(
                404 if self.token else 401,
                "RepoNotFound",
                "Repository not found" if self.token else "Invalid username or password.",
            )
            return None
        if gated_check and r.gated and self.token not in r.tokens:
            self.error(
                403 if self.token else 401,
                "GatedRepo",
                f"Access to model {rid} is restricted. You must have access to it and be authenticated.",
            )
            return None
        return r

    def rev(self, repo, rev):
        sha = self.st.resolve(repo, rev)
        if sha is None:
            self.error(404, "RevisionNotFound", f"Invalid rev id: {rev}")
        return sha

    # ---- files ----------------------------------------------------------
    def resolve(self, kind, rid, rev, path):
        kind = "datasets" if kind else "models"
        if new := self.st.renamed.get(rid):
            return self.reply(307, None, {"Location": self.path.replace(rid, new, 1)}, b"", "text/plain")
        if not (repo := self.repo(kind, rid, True)) or not (sha := self.rev(repo, rev)):
            return
        e = repo.commits[sha][3].get(path)
        if e is None:
            return self.error(404, "EntryNotFound", "Entry not found", **{"X-Repo-Commit": sha})
        h = {"X-Repo-Commit": sha, "Accept-Ranges": "bytes", "ETag": f'"{e.oid}"'}
        if e.lfs:
            h.update(
                {
                    "X-Linked-Size": str(e.size),
                    "X-Linked-ETag": f'"{e.sha256}"',
                    "Location": f"{self.server.cdn}/cdn/{e.sha256}?sig=test",
                }
            )
            if self.st.xet:
                h.update(
                    {
                        "X-Xet-Hash": self.st.to_xet(e),
                        "X-Xet-Refresh-Route": f"{self.server.url}/api/{kind}/{rid}/xet-read-token/{sha}",
                    }
                )
        if (f := self.fault) and f.action == "dropheader":
            h = {k: v for k, v in h.items() if k not in f.headers}
        if f and f.action == "setheader":
            h.update(f.headers)
        if e.lfs:
            return self.reply(302, None, h, b"", "text/plain")
        self.blob(e.sha256, h)

    def cdn(self, sha):
        if not (self.st.blobs / sha).exists():
            return self.error(403, None, "AccessDenied")
        f = self.fault
        more = f.headers if f and f.action == "setheader" else {}
        self.blob(sha, {"ETag": f'"{sha}"', "Accept-Ranges": "bytes", **more})

    def blob(self, sha, headers):
        path, f = self.st.blobs / sha, self.fault
        if f and f.action == "body":  # these bytes, whatever they should be
            return self.reply(200, None, {**headers, **f.headers}, f.body, "application/octet-stream")
        size = path.stat().st_size
        start, end, status = 0, size - 1, 200
        m = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range") or "")
        if m and not (f and f.action == "norange"):
            if m[1]:
                start, end = int(m[1]), min(int(m[2] or size - 1), size - 1)
            else:
                start = max(0, size - int(m[2]))
            if start >= size:
                return self.reply(416, None, {"Content-Range": f"bytes */{size}"}, b"")
            status = 206
            headers = {**headers, "Content-Range": f"bytes {start}-{end}/{size}"}
        length = end - start + 1
        self.send_response(status)
        for k, v in headers.items():
            self.send_header(k, v)
        self.send_header("Content-Type", "application/octet-stream")
        declared = length
        if f and f.action == "badlen":
            declared = length + f.at
        if f and f.action in ("chunked", "dripframe"):
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(declared))
        self.end_headers()
        if self.command == "HEAD":
            return
        for _ in range(10_000) if f and f.action == "dripframe" else ():  # a chunk's size in very many digits
            self.wfile.write(b"0")
            self.server.closed.wait(f.seconds)
        sent = 0
        with path.open("rb") as fh:
            fh.seek(start)
            while sent < length:
                n = min(1 << 16, length - sent)
                if f and f.action == "drip":
                    n = 1
                if f and f.action == "stall" and sent < f.at:
                    n = min(n, f.at - sent)
                if f and f.action in ("truncate", "reset") and sent + n > f.at:
                    n = max(0, f.at - sent)
                chunk = fh.read(n)
                if f and f.action == "flip" and start + sent <= f.at < start + sent + n:
                    i = f.at - start - sent
                    chunk = chunk[:i] + bytes([chunk[i] ^ 0xFF]) + chunk[i + 1 :]
                if chunk:
                    if f and f.action == "chunked":
                        self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                    else:
                        self.wfile.write(chunk)
                    sent += len(chunk)
                if f and f.action in ("slow", "drip"):
                    self.server.closed.wait(f.seconds)
                if f and f.action == "stall" and sent >= f.at:
                    self.server.closed.wait(f.seconds)
                    f = None
                if f and f.action in ("truncate", "reset") and sent >= f.at:
                    self.wfile.flush()
                    if f.action == "reset":
                        return self.reset()
                    self.close_connection = True  # clean FIN, short body
                    self.connection.shutdown(socket.SHUT_WR)
                    return
        if f and f.action == "chunked":
            self.wfile.write(b"0\r\n\r\n")
        if f and f.action == "badlen":
            self.close_connection = True

    # ---- read API -------------------------------------------------------
    def page_reply(self, items):
        cur, size = int(self.q.get("cursor", ["0"])[0]), min(int(self.q.get("limit", [self.st.page])[0]), self.st.page)
        h = {}
        if cur + size < len(items):
            base = [(k, v) for k, vs in self.q.items() if k != "cursor" for v in vs] + [("cursor", str(cur + size))]
            qs = "&".join(f"{quote(k)}={quote(v)}" for k, v in base)
            h["Link"] = f'<{self.server.url}{urlsplit(self.path).path}?{qs}>; rel="next"'
        self.reply(200, items[cur : cur + size], h)

    def list_repos(self, kind):
        out, q = [], self.q

        def one(key):
            return q.get(key, [None])[0]

        for (k, rid), r in sorted(self.st.repos.items()):
            if k != kind or (r.private and self.token not in r.tokens):
                continue
            d = self.st.info(r, r.branches["main"], config=one("config") is not None or "config" in q.get("expand", []))
            if one("search") and one("search").lower() not in rid.lower():
                continue
            if one("author") and d["author"] != one("author"):
                continue
            if one("pipeline_tag") and d.get("pipeline_tag") != one("pipeline_tag"):
                continue
            if any(t not in d["tags"] for t in q.get("filter", [])):
                continue
            if not (one("full") or one("cardData") or one("expand")):
                for drop in ("siblings", "cardData", "sha", "lastModified"):
                    d.pop(drop, None)
            out.append(d)
        self.page_reply(out)

    def repo_info(self, kind, rid, rev=None):
        if new := self.st.renamed.get(rid):
            return self.reply(307, None, {"Location": self.path.replace(rid, new, 1)}, b"", "text/plain")
        if not (repo := self.repo(kind, rid)) or not (sha := self.rev(repo, rev or "main")):
            return
        self.reply(200, self.st.edit(self.st.info(repo, sha, blobs="blobs" in self.q, config=True)))

    def file_json(self, path, e):
        d = {"type": "file", "oid": e.oid, "size": e.size, "path": path}
        if e.lfs:
            d["lfs"] = {"oid": e.sha256, "size": e.size, "pointerSize": 134}
            if self.st.xet:
                d["xetHash"] = self.st.to_xet(e)
        return d

    def tree(self, kind, rid, rev, path=None):
        if not (repo := self.repo(kind, rid, True)) or not (sha := self.rev(repo, rev)):
            return
        pre, out, seen = (path.strip("/") + "/" if path else ""), [], set()
        rec = self.q.get("recursive", ["false"])[0].lower() in ("1", "true")
        for p, e in sorted(repo.commits[sha][3].items()):
            if not p.startswith(pre):
                continue
            parts = p[len(pre) :].split("/")
            for i in range(1, len(parts) if rec else min(2, len(parts))):
                d = pre + "/".join(parts[:i])
                if d not in seen:
                    seen.add(d)
                    out.append({"type": "directory", "oid": hashlib.sha1(d.encode()).hexdigest(), "size": 0, "path": d})
            if rec or len(parts) == 1:
                out.append(self.file_json(p, e))
        if pre and not out:
            return self.error(404, "EntryNotFound", f"{path} does not exist on {rev}")
        self.page_reply(out)

    def paths_info(self, kind, rid, rev):
        data = self.body()
        if not (repo := self.repo(kind, rid, True)) or not (sha := self.rev(repo, rev)):
            return
        paths = json.loads(data)["paths"] if data[:1] == b"{" else parse_qs(data.decode()).get("paths", [])
        files = repo.commits[sha][3]
        self.reply(200, [self.file_json(p, files[p]) for p in paths if p in files])

    def refs(self, kind, rid):
        if repo := self.repo(kind, rid):

            def mk(pre, names):
                return [{"name": n, "ref": f"refs/{pre}/{n}", "targetCommit": c} for n, c in names.items()]

            self.reply(200, {"branches": mk("heads", repo.branches), "tags": mk("tags", repo.tags), "converts": []})

    def commits(self, kind, rid, rev):
        if not (repo := self.repo(kind, rid)) or not (sha := self.rev(repo, rev)):
            return
        out = []
        while sha:
            parent, msg, ts, _ = repo.commits[sha]
            out.append(
                {
                    "id": sha,
                    "title": msg,
                    "message": "",
                    "authors": [{"user": "tester"}],
                    "date": time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(ts)),
                }
            )
            sha = parent
        self.page_reply(out)

    def no_discussions(self, kind, rid):  # transformers asks when a repo has pickle weights only
        self.reply(200, {"discussions": [], "count": 0, "start": 0, "numClosedDiscussions": 0})

    def whoami(self):
        u = self.st.users.get(self.token)
        if u is None:
            return self.error(401, None, "Invalid username or password.")
        self.reply(
            200,
            {
                "type": "user",
                "id": "0",
                "name": u,
                "fullname": u,
                "orgs": [],
                "auth": {"type": "access_token", "accessToken": {"displayName": "t", "role": "write"}},
            },
        )

    def auth_check(self, kind, rid):
        if self.repo(kind, rid, True):
            self.reply(200, {})

    # ---- write API ------------------------------------------------------
    def writer(self):
        u = self.st.users.get(self.token)
        if u is None:
            self.error(401, None, "Invalid username or password.")
        return u

    def create_repo(self):
        p = json.loads(self.body())
        if not (u := self.writer()):
            return
        kind = p.get("type", "model") + "s"
        rid = f"{p.get('organization') or u}/{p['name']}"
        url = f"{self.server.url}/{KINDS[kind]}{rid}"
        if (kind, rid) in self.st.repos:
            return self.reply(409, {"error": "You already created this model repo", "url": url})
        private = p.get("visibility") == "private" or p.get("private") is True
        self.st.create(rid, kind, private=private, tokens={self.token})
        self.reply(200, {"url": url, "name": rid, "id": "0"})

    def delete_repo(self):
        p = json.loads(self.body())
        if not (u := self.writer()):
            return
        key = (p.get("type", "model") + "s", f"{p.get('organization') or u}/{p['name']}")
        if self.st.repos.pop(key, None) is None:
            return self.error(404, "RepoNotFound", "Repository not found")
        self.reply(200, body=b"OK", ctype="text/plain")

    def validate_yaml(self):
        self.body()
        self.reply(200, {"errors": [], "warnings": []})

    def preupload(self, kind, rid, rev):
        p = json.loads(self.body())
        if not self.writer() or not (repo := self.repo(kind, rid)) or not (sha := self.rev(repo, rev)):
            return
        files = repo.commits[sha][3]
        self.reply(
            200,
            {
                "files": [
                    {
                        "path": f["path"],
                        "shouldIgnore": False,
                        "uploadMode": "lfs" if self.st.is_lfs(f["path"], f["size"]) else "regular",
                        "oid": (files[f["path"]].sha256 if files[f["path"]].lfs else files[f["path"]].oid)
                        if f["path"] in files
                        else None,
                    }
                    for f in p["files"]
                ]
            },
        )

    def lfs_batch(self, kind, rid):
        p = json.loads(self.body())
        if not self.writer() or not self.repo("datasets" if kind else "models", rid):
            return
        out = []
        for o in p["objects"]:
            d = {"oid": o["oid"], "size": o["size"]}
            if not (self.st.blobs / o["oid"]).exists():
                d["actions"] = {
                    "upload": {"href": f"{self.server.cdn}/lfs/{o['oid']}", "header": {}},
                    "verify": {"href": f"{self.server.url}/lfs-verify/{o['oid']}", "header": {}},
                }
            out.append(d)
        self.reply(200, {"transfer": "basic", "objects": out}, ctype="application/vnd.git-lfs+json")

    def lfs_put(self, oid):
        data = self.body()
        if hashlib.sha256(data).hexdigest() != oid:
            return self.error(422, None, "sha256 mismatch")
        self.st.put(data)
        self.reply(200, body=b"")

    def lfs_verify(self, oid):
        p = json.loads(self.body())
        b = self.st.blobs / oid
        if not b.exists() or b.stat().st_size != p["size"]:
            return self.error(404, None, "object missing")
        self.reply(200, {})

    def post_commit(self, kind, rid, rev):
        lines = [json.loads(x) for x in self.body().splitlines() if x]
        if not self.writer() or not (repo := self.repo(kind, rid)) or not (sha := self.rev(repo, rev)):
            return
        head = lines[0]["value"]
        with self.st.lock:
            if head.get("parentCommit") and not repo.branches[rev].startswith(head["parentCommit"]):
                return self.error(412, None, "A commit has happened since. Please refresh and try again.")
            files = dict(repo.commits[sha][3])
            for ln in lines[1:]:
                v = ln["value"]
                if ".." in v["path"].split("/") or v["path"].startswith("/"):
                    return self.error(400, None, "invalid path")
                if ln["key"] == "file":
                    files[v["path"]] = self.st.entry(v["path"], base64.b64decode(v["content"]))
                elif ln["key"] == "lfsFile":
                    if not (b := self.st.blobs / v["oid"]).exists() and not self.st.from_xet(v["oid"]):
                        return self.error(400, None, "lfs object missing")
                    files[v["path"]] = self.st.entry(v["path"], b.read_bytes())
                elif ln["key"] == "deletedFile":
                    if files.pop(v["path"], None) is None:
                        return self.error(404, "EntryNotFound", "A file with this name doesn't exist")
                elif ln["key"] == "deletedFolder":
                    files = {p: e for p, e in files.items() if not p.startswith(v["path"].rstrip("/") + "/")}
            oid = self.st.commit(repo, rev, files, head["summary"])
        self.reply(
            200,
            {
                "success": True,
                "commitOid": oid,
                "hookOutput": "",
                "commitUrl": f"{self.server.url}/{KINDS[kind]}{rid}/commit/{oid}",
            },
        )

    def ref_edit(self, kind, rid, what, name):
        p = json.loads(self.body() or b"{}")
        if not self.writer() or not (repo := self.repo(kind, rid)):
            return
        if self.command == "DELETE":
            (repo.branches if what == "branch" else repo.tags).pop(name, None)
        elif what == "branch":
            if name in repo.branches:
                return self.error(409, None, f"Reference already exists: refs/heads/{name}")
            if not (sha := self.rev(repo, p.get("startingPoint") or "main")):
                return
            repo.branches[name] = sha
        else:
            if p["tag"] in repo.tags:
                return self.error(409, None, "Tag reference exists already")
            if not (sha := self.rev(repo, name)):
                return
            repo.tags[p["tag"]] = sha
        self.reply(201, {})

    def xet_token(self, kind, rid, mode, rev=None):
        exp = int(time.time()) + 3600  # python reads the headers, hf_xet (Rust) reads the JSON body
        self.reply(
            200,
            {"casUrl": self.server.cas, "accessToken": "t", "exp": exp},
            {"X-Xet-Cas-Url": self.server.cas, "X-Xet-Access-Token": "t", "X-Xet-Token-Expiration": str(exp)},
        )


RID, K = r"(?P<rid>[^/]+/[^/]+)", r"/api/(?P<kind>models|datasets)"
H = Handler
ROUTES = [
    (v.split(), rx, fn)
    for v, rx, fn in [
        ("GET HEAD", rf"/(?P<kind>datasets/)?{RID}/resolve/(?P<rev>[^/]+)/(?P<path>.+)", H.resolve),
        ("GET HEAD", r"/cdn/(?P<sha>[0-9a-f]{64})", H.cdn),
        ("GET", K, H.list_repos),
        ("GET", r"/api/whoami-v2", H.whoami),
        ("GET", rf"{K}/{RID}/auth-check", H.auth_check),
        ("GET", rf"{K}/{RID}/refs", H.refs),
        ("GET", rf"{K}/{RID}/revision/(?P<rev>[^/]+)", H.repo_info),
        ("GET", rf"{K}/{RID}/commits/(?P<rev>[^/]+)", H.commits),
        ("GET", rf"{K}/{RID}/discussions", H.no_discussions),
        ("GET", rf"{K}/{RID}/tree/(?P<rev>[^/]+)(?P<path>/.+)?", H.tree),
        ("GET", rf"{K}/{RID}/xet-(?P<mode>read|write)-token(/(?P<rev>[^/]+))?", H.xet_token),
        ("POST", rf"{K}/{RID}/paths-info/(?P<rev>[^/]+)", H.paths_info),
        ("GET", rf"{K}/{RID}", H.repo_info),
        ("POST", r"/api/repos/create", H.create_repo),
        ("DELETE", r"/api/repos/delete", H.delete_repo),
        ("POST", r"/api/validate-yaml", H.validate_yaml),
        ("POST", rf"{K}/{RID}/preupload/(?P<rev>[^/]+)", H.preupload),
        ("POST", rf"{K}/{RID}/commit/(?P<rev>[^/]+)", H.post_commit),
        ("POST DELETE", rf"{K}/{RID}/(?P<what>branch|tag)/(?P<name>[^/]+)", H.ref_edit),
        ("POST", rf"/(?P<kind>datasets/)?{RID}\.git/info/lfs/objects/batch", H.lfs_batch),
        ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", H.lfs_put),
        ("POST", r"/lfs-verify/(?P<oid>[0-9a-f]{64})", H.lfs_verify),
    ]
]


class LocalHub:
    """with LocalHub(tmp) as hub: os.environ['HF_ENDPOINT'] = hub.url"""

    def __init__(self, root, port=0, host="127.0.0.1", **kw):
        self.state = HubState(Path(root), **kw)
        self.srv = ThreadingHTTPServer((host, port), Handler)
        self.srv.daemon_threads, self.srv.state, self.srv.closed = True, self.state, threading.Event()
        loud = self.srv.handle_error  # a client that hangs up is no error of the Hub
        self.srv.handle_error = lambda *a: None if isinstance(sys.exc_info()[1], ConnectionError) else loud(*a)
        self.port = self.srv.server_address[1]
        self.url = self.srv.url = f"http://{host}:{self.port}"
        self.srv.cdn = f"http://localhost:{self.port}"  # other origin, like the real CDN
        self.srv.cas = f"local://{self.state.cas}"  # hf_xet reads/writes this folder directly

    def __enter__(self):
        self.thread = threading.Thread(target=self.srv.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *a):
        self.srv.closed.set()  # faults that would last for minutes yet
        self.srv.shutdown()
        self.srv.server_close()


def point_at(hub, patch, cache):
    """Make the Hub's client in this process talk to ``hub``, keep its cache in ``cache``, and know no token."""
    from huggingface_hub import constants

    for name in [n for n in os.environ if n.startswith(("HF_", "HUGGING_FACE_"))]:
        patch.delenv(name)
    patch.setattr(constants, "ENDPOINT", hub.url)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    patch.setattr(constants, "HF_HUB_CACHE", str(cache))
    patch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
