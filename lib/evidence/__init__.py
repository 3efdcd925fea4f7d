"""What was measured, on disk: whole, or not at all."""

from lib.evidence.records import digest, file_digest, read, verify
from lib.evidence.store import Store

__all__ = ["Store", "digest", "file_digest", "read", "verify"]
