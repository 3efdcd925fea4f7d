"""A hub of models and data sets out of local folders, which answers as the real one does."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote

SHA = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def hub(models: dict[str, Path], datasets: dict[str, Path]) -> Iterator[str]:
    """Its address. models, datasets: name → the folder of its files."""

    class Handler(BaseHTTPRequestHandler):
        def _folder(self) -> tuple[str, Path | None, str]:
            """Kind of request, the repository's folder, and the rest of the path."""
            path = unquote(self.path.partition("?")[0]).strip("/")
            kind, path = ("api", path[4:]) if path.startswith("api/") else ("file", path)
            known = {f"datasets/{name}": at for name, at in datasets.items()}
            known |= {
                f"models/{name}" if kind == "api" else name: at for name, at in models.items()
            }
            for name, folder in known.items():
                if path == name or path.startswith(f"{name}/"):
                    return kind, folder, path[len(name) :].strip("/")
            return kind, None, path

        def _files(self, folder: Path) -> list[dict]:
            return [
                {"type": "file", "path": p.relative_to(folder).as_posix(), "size": p.stat().st_size}
                | {"oid": hashlib.sha1(p.read_bytes()).hexdigest()}
                for p in sorted(folder.rglob("*"))
                if p.is_file()
            ]

        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            asked = self.rfile.read(length) if length else b""
            kind, folder, rest = self._folder()
            if folder is None:
                return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            if kind == "file":
                name = rest.removeprefix("resolve/").partition("/")[2]
                if not (folder / name).is_file():
                    return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
                body = (folder / name).read_bytes()
                tag = {"ETag": f'"{hashlib.sha1(body).hexdigest()}"', "X-Repo-Commit": SHA}
                return self._send(200, body, tag)
            files = self._files(folder)
            if rest.startswith("tree/"):
                below = rest.removeprefix("tree/").partition("/")[2]
                found = [one for one in files if one["path"].startswith(f"{below}/".lstrip("/"))]
                if not found:
                    return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
                if "recursive=true" not in self.path.lower():
                    found = _children(found, below)
                return self._send(200, json.dumps(found).encode())
            if rest.startswith("paths-info/"):
                wanted = parse_qs(asked.decode())["paths"]
                found = [one for one in files if one["path"] in wanted]
                return self._send(200, json.dumps(found).encode())
            about = {"id": "some/one", "sha": SHA, "private": False, "tags": []}
            about["siblings"] = [{"rfilename": one["path"]} for one in files]
            return self._send(200, json.dumps(about).encode())

        do_GET = do_HEAD = do_POST = answer

        def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def _children(files: list[dict], below: str) -> list[dict]:
    """What lies right in a folder: files, and folders of others."""
    found: dict[str, dict] = {}
    for one in files:
        name, more, _ = one["path"].removeprefix(f"{below}/" if below else "").partition("/")
        path = f"{below}/{name}".lstrip("/")
        found[path] = {"type": "directory", "path": path, "oid": SHA, "size": 0} if more else one
    return list(found.values())
