"""Data files: found on this machine or downloaded, and read only if their checksum is right."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from .errors import ResourceError


@dataclass(frozen=True)
class DataFile:
    """A data file that a scenario reads. Its checksum identifies its version.

    folder:       its folder in $FPBENCH_DATA and in the cache of fpbench.
    file:         its name.
    checksum:     "md5:..." or "sha256:...".
    url:          the address to download it from; empty if there is none.
    other_folder: one more folder to search, such as another package's cache.
    """

    folder: str
    file: str
    checksum: str
    url: str = ""
    other_folder: str = ""

    def found(self) -> Path | None:
        """Return the first of `places` where the file exists, or None. It checks no checksum."""
        return next((path for path in self.places() if path.is_file()), None)

    def places(self) -> list[Path]:
        """Return the paths where the file is looked for, in this order."""
        own = os.environ.get("FPBENCH_DATA")
        folders = [Path(own) / self.folder] if own else []
        folders.append(self._cache())
        if self.other_folder:
            folders.append(Path(self.other_folder).expanduser())
        return [folder / self.file for folder in folders]

    def read(self, advice: str = "") -> bytes:
        """Return the file's bytes. A file that is not on this machine is downloaded.

        advice: what else a user can do about a missing file, for the message.

        Raises ResourceError if the file is missing or has another checksum.
        """
        path = self.found() or self._fetched(advice)
        data = path.read_bytes()  # read once, so that the parsed bytes are the checked ones
        algorithm, _, expected = self.checksum.partition(":")
        actual = hashlib.new(algorithm, data).hexdigest()
        if actual != expected:
            todo = "it will be fetched again" if self.url else "put the right one there"
            raise ResourceError(
                f"expected {self.file} with {algorithm} {expected}, found {path} of "
                f"{len(data):,} bytes with {actual}: it is truncated or another version; delete "
                f"it, and {todo}"
            )
        return data

    def missing(self) -> str:
        """Return the part of a message that says where the file was looked for."""
        return f"expected {self.file} in $FPBENCH_DATA/{self.folder} or {self._cache()}, found none"

    def _cache(self) -> Path:
        import pooch

        return Path(pooch.os_cache("fpbench")) / self.folder

    def _fetched(self, advice: str) -> Path:
        if not self.url:
            raise ResourceError(f"{self.missing()}; put it there{advice}")
        import pooch

        pooch.get_logger().setLevel("WARNING")
        try:
            return Path(
                pooch.retrieve(
                    self.url, known_hash=self.checksum, fname=self.file, path=self._cache(),
                    downloader=pooch.HTTPDownloader(timeout=30),
                )
            )  # fmt: skip
        except (OSError, ValueError) as error:
            # Errors of requests are OSErrors; pooch raises ValueError for a wrong checksum.
            reason = str(error).split("\n")[0][:200]
            raise ResourceError(
                f"{self.missing()}, and it could not be fetched ({type(error).__name__}: "
                f"{reason}); fetch it elsewhere from {self.url} and put it there{advice}"
            ) from None
