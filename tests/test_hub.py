"""Repositories that cannot be read, on a hub that answers as the real one does."""

import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from huggingface_hub import constants

from lib import paths
from lib import study as studies
from lib.errors import UserError
from lib.fields import Text
from lib.models import checkpoints, corpora
from lib.pruning import on_disk

SHA = "0123456789abcdef0123456789abcdef01234567"
# Repository → status and error code of (its page, its files).
ANSWERS = {
    "some/gated": ((200, None), (403, "GatedRepo")),
    "some/closed": ((403, "GatedRepo"), (403, "GatedRepo")),
    "some/missing": ((401, "RepoNotFound"), (401, "RepoNotFound")),
    "some/other-branch": ((404, "RevisionNotFound"), (404, "RevisionNotFound")),
    "some/broken": ((500, None), (500, None)),
    "some/packed": ((200, None), (404, "EntryNotFound")),
}


class Hub(BaseHTTPRequestHandler):
    def answer(self) -> None:
        path = self.path.partition("?")[0]
        name = next((name for name in ANSWERS if name in path), "some/missing")
        status, code = ANSWERS[name][0 if "/api/" in path else 1]
        body = json.dumps({"id": name, "sha": SHA, "siblings": []}).encode()
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = answer

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch, tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        address + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # the tests' own setting
    yield address
    server.shutdown()
    checkpoints._hub_commit.cache_clear()


def study(model: str):
    return studies.load("smollm2-135m").model_copy(update={"model": model, "shape": None})


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("some/gated", "accept its licence at huggingface.co/some/gated and log in"),
        ("some/closed", "accept its licence at huggingface.co/some/closed and log in"),
        ("some/missing", "no such model on the hub, or a private one: check the name"),
        ("some/other-branch", "has no such revision"),
        ("some/broken", "not reachable on the hub"),
        (
            "some/packed",
            "no such file; its files are listed at huggingface.co/some/packed/tree",
        ),
    ],
)
def test_a_model_that_cannot_be_had(model, says, hub):
    with pytest.raises(UserError) as error:
        checkpoints.load_config(study(model))
    message = str(error.value)
    assert model in message and says in message and "\n" not in message


def test_a_file_that_the_hub_does_not_have(hub):
    named = study("some/packed").model_copy(update={"gguf": "small.gguf"})
    with pytest.raises(UserError) as error:
        checkpoints.load_config(named)
    message = str(error.value)
    assert message.startswith("file small.gguf of model some/packed: has no such file")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("some/closed", "accept its licence at huggingface.co/datasets/some/closed and log in"),
        ("some/missing", "no such dataset on the hub, or a private one"),
        ("some/broken", "not reachable on the hub"),
    ],
)
def test_a_text_that_cannot_be_had(name, says, hub):
    with pytest.raises(UserError) as error:
        corpora.source(Text(dataset=name))
    message = str(error.value)
    assert name in message and says in message and "\n" not in message
    assert "give a local file" in message


def test_without_a_network_one_line_says_so(monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    checkpoints._hub_commit.cache_clear()
    with pytest.raises(UserError, match=r"hub cannot be reached|not reachable on the hub"):
        checkpoints.commit(study("some/model"))


def test_from_the_command_line_there_is_no_traceback(hub, tmp_path, write_study):
    study = write_study(tmp_path, model="some/gated")
    done = subprocess.run(
        [sys.executable, "-m", "lib.run", "check", "--study", str(study)],
        cwd=paths.ROOT,
        env=os.environ | {"HF_ENDPOINT": hub, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "accept its licence at" in done.stderr and "Traceback" not in done.stderr


@pytest.fixture
def cached(monkeypatch, tmp_path, tiny_checkpoint):
    """`cached(commit, …)`: snapshots of some/model in the hub's cache, which is offline."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    checkpoints._hub_commit.cache_clear()

    def make(*commits: str, main: str | None = None):
        folder = tmp_path / "models--some--model"
        for commit in commits:
            shutil.copytree(tiny_checkpoint("llama"), folder / "snapshots" / commit)
        if main is not None:
            (folder / "refs").mkdir()
            (folder / "refs/main").write_text(main)
        return folder

    return make


OTHER = "f" * 40


@pytest.mark.parametrize(
    ("commits", "main", "found"),
    [
        ([SHA], SHA, SHA),
        ([SHA], f"{SHA}\n", SHA),  # copied by hand
        ([SHA], None, SHA),  # fetched by its commit
        ([OTHER, SHA], SHA, SHA),
        ([OTHER, SHA], f" {SHA}\r\n", SHA),
    ],
)
def test_a_cached_model_is_found(commits, main, found, cached, tmp_path):
    snapshots = cached(*commits, main=main) / "snapshots"
    assert checkpoints.commit(study("some/model")) == found
    assert on_disk.find("some/model") == snapshots / found
    assert checkpoints.commit(study("some/model").model_copy(update={"revision": SHA})) == SHA


def test_what_a_cache_does_not_say_is_asked_for(cached):
    folder = cached(OTHER, SHA)
    for ask in (
        lambda: checkpoints.commit(study("some/model")),
        lambda: on_disk.find("some/model"),
    ):
        with pytest.raises(UserError) as raised:
            ask()
        message = str(raised.value)
        assert f"revision: {SHA} or {OTHER}" in message and str(folder / "snapshots") in message
    again = study("some/model").model_copy(update={"revision": OTHER})
    assert checkpoints.commit(again) == OTHER


def test_a_cache_without_the_revision_is_no_cache_of_it(cached):
    cached(SHA, main=OTHER)
    with pytest.raises(UserError, match="not in the cache"):
        checkpoints.commit(study("some/model"))
    with pytest.raises(UserError, match="nor a model in the hub's cache"):
        on_disk.find("some/model")
