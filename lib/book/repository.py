"""Where the repository and the site can be reached: `repository` and `html.baseurl` in _config.yml.

Buttons, links to lines of code, BibTeX and sharing need these. Each is absent until its address is
given.
"""

from typing import Any

import yaml

from lib import paths
from lib.errors import UserError

CONFIG = "_config.yml"


def settings() -> dict[str, Any]:
    return yaml.safe_load((paths.ROOT / CONFIG).read_text("utf-8"))


def address() -> str:
    """Of the repository, or empty. Raises UserError for one that is no web address."""
    return _address("repository.url", settings()["repository"]["url"])


def site() -> str:
    """Of the site, with a slash at its end, or empty. Raises UserError likewise."""
    found = _address("html.baseurl", settings()["html"]["baseurl"])
    return f"{found}/" if found else ""


def _address(key: str, given: str | None) -> str:
    if given and not given.startswith(("https://", "http://")):
        raise UserError(f"{CONFIG}: {key} '{given}': an address starts with https://")
    return (given or "").rstrip("/")


def link(path: str, line: int | None = None, commit: str = "") -> str:
    """The address of a file, or of a line in it, as of a commit or else of the branch; empty where
    the repository has none."""
    if not address():
        return ""
    version = commit or settings()["repository"]["branch"]
    folder = "-/blob" if "gitlab" in address() else "blob"
    return f"{address()}/{folder}/{version}/{path}" + (f"#L{line}" if line else "")


def configured() -> dict[str, Any]:
    """_config.yml as the site is built with it: with buttons for the repository where it has an
    address, and without those that need one where it has none."""
    config = settings()
    if address():
        buttons = ("use_edit_page_button", "use_issues_button", "use_repository_button")
        config["html"] |= dict.fromkeys(buttons, True)
    else:
        del config["launch_buttons"]
    return config
