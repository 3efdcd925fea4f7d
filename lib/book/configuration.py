"""What `--config` and configuration files of Snakemake may say, checked."""

import os
import re
from typing import Annotated, Any, Literal
from urllib.parse import unquote_to_bytes

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from lib import paths
from lib.errors import UserError


class Configuration(BaseModel):
    """What `--config` and configuration files may say. How fine the jobs are and what each gets is
    worked out from the study and this machine where it is left out."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    study: str = paths.DEFAULT_STUDY
    sections: list[str] | None = None
    grain: Literal["auto", "sections", "models"] = "auto"
    shards: Annotated[int, Field(ge=1)] | None = None
    threads: Annotated[int, Field(ge=1)] | None = None
    gpus: Annotated[int, Field(ge=0)] | None = None
    memory_mb: Annotated[int, Field(ge=1)] | None = None
    minutes: Annotated[int, Field(ge=1)] | None = None
    flops: Annotated[float, Field(gt=0)] | None = None
    elsewhere: bool = False

    @field_validator("study")
    @classmethod
    def path(cls, value: str) -> str:
        """A study's name or path, or the address of its file, `file:///…`."""
        address = value.startswith("file://")
        return os.fsdecode(unquote_to_bytes(value.removeprefix("file://"))) if address else value

    @field_validator("sections", mode="before")
    @classmethod
    def names(cls, value: Any) -> Any:
        """`sections=2`, `sections=02,loss` and `sections=[2,3]` all say which."""
        if value is None:
            return None
        try:
            return [paths.section(one) for one in re.findall(r"[^\s,\[\]'\"]+", str(value))]
        except UserError as error:
            raise ValueError(str(error)) from None


def configuration(given: dict[str, Any]) -> Configuration:
    """Checked; raises UserError, one line that names the key and what is allowed."""
    try:
        return Configuration(**given)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            allowed = ", ".join(Configuration.model_fields)
            raise UserError(f"configuration: unknown key '{key}'; allowed: {allowed}") from None
        message = first["msg"].removeprefix("Value error, ")
        raise UserError(f"configuration: {key}: {message[0].lower()}{message[1:]}") from None
