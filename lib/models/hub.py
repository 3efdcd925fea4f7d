"""What went wrong with the hub, in words that say what to do."""

from typing import Literal

from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

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
    reason = " ".join(str(error).split())[:160] or type(error).__name__
    return f"not reachable on the hub ({reason})"


def chain(error: BaseException | None) -> list[BaseException]:
    """The error with all that led to it."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found
