"""What went wrong with the hub, in words that say what to do."""

from pathlib import Path
from typing import Literal

from huggingface_hub import constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name

from lib.errors import UserError

PAGES = {"model": "huggingface.co", "dataset": "huggingface.co/datasets"}


def explain(error: BaseException, kind: Literal["model", "dataset"], name: str) -> str:
    """Why a repository could not be read, and what helps; whatever the error was wrapped in."""
    page = f"{PAGES[kind]}/{name}"
    found = [type(one) for one in chain(error)]

    def is_one(*kinds: type[BaseException]) -> bool:
        return any(issubclass(one, kinds) for one in found)

    if is_one(GatedRepoError) or "is a gated dataset" in str(error):
        return f"gated; accept its licence at {page} and log in with `hf auth login`"
    if is_one(RevisionNotFoundError):
        return f"has no such revision; its revisions are listed at {page}"
    if is_one(RepositoryNotFoundError):
        return (
            f"no such {kind} on the hub, or a private one: check the name ({page}), or log in with "
            "`hf auth login`"
        )
    if is_one(OfflineModeIsEnabled, LocalEntryNotFoundError, ConnectionError, TimeoutError):
        return "not in the cache, and the hub cannot be reached; check the network"
    if is_one(EntryNotFoundError):
        return (
            f"has no such file; its files are listed at {page}/tree/main, and one of GGUF is named "
            "with the key gguf"
        )
    reason = " ".join(str(error).split())[:160] or type(error).__name__
    return f"not reachable on the hub ({reason})"


def cached_snapshot(model: str, revision: str | None = None) -> Path | None:
    """The folder, named after its commit, that holds a revision of a model in the cache here; None
    where it is not in there. Caches that were copied, or fetched by commit, may not say which
    commit a branch stands for.

    Raises UserError where several commits are there, and nothing says which is meant."""
    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=model, repo_type="model")
    there = sorted(path.parent for path in folder.glob("snapshots/*/config.json"))
    named = folder / "refs" / (revision or "main")
    commit = named.read_text("utf-8").strip() if named.is_file() else revision
    if commit is not None:
        return next((snapshot for snapshot in there if snapshot.name == commit), None)
    if len(there) > 1:
        commits = " or ".join(snapshot.name for snapshot in there)
        raise UserError(
            f"model {model}: the cache here does not say which commit its main is; give "
            f"revision: {commits}, or that snapshot's folder in {folder / 'snapshots'}"
        )
    return there[0] if there else None


def chain(error: BaseException | None) -> list[BaseException]:
    """The error with all that led to it."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found
