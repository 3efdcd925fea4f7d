"""The exact packages that are set up."""

import re
import tomllib
from importlib import metadata

from packaging.specifiers import SpecifierSet

from lib import paths


def test_they_install_with_the_oldest_python_that_is_promised() -> None:
    """A machine's own 3.11 may be years older than the one that resolved them."""
    project = tomllib.loads((paths.ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    oldest = re.search(r">=(3\.\d+)", project["requires-python"])[1] + ".0"
    pinned = re.findall(r"^([\w.-]+)==", (paths.ROOT / "requirements.txt").read_text("utf-8"), re.M)
    assert len(pinned) > 100
    wants = {name: metadata.metadata(name).get("Requires-Python") or "" for name in pinned}
    refused = {name: one for name, one in wants.items() if oldest not in SpecifierSet(one)}
    assert refused == {}
