"""Downloads the published SMS Spam Collection, and verifies it against a pinned hash.

An interrupted download resumes where it stopped, in this run or in the next. The archive is untrusted: its size is
limited, only one member is extracted, and a file with another hash is not kept. `tasks.sources.files` reads the rows.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import stat
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, TYPE_CHECKING

from models.errors import ArtifactError, InputError
from tasks.artifacts.fingerprint import file_sha256
from tasks.artifacts.folders import lock_folder, read_json, write_json

if TYPE_CHECKING:
    import requests

log = logging.getLogger("spamscore")

# The hash of the member, not of the zip: the zip was repacked over the years, its content never changed.
SMS_SPAM_COLLECTION_SHA256 = "7d039a24a6083ed9ef0f806ebad56bbb976e3aeb8de05669173bfdc4996c239d"
MEMBER = "SMSSpamCollection"
MAX_BYTES = 64 * 2**20  # limit for the archive and for the member; the published ones have 0.2 and 0.5 MB
RETRY_DELAYS = (1.0, 2.0, 4.0, 8.0)  # seconds before each retry
READ_TIMEOUT_SECONDS = 10.0  # an attempt that receives no byte for this long has failed
_TEMPORARY_STATUS = frozenset({408, 416, 425, 429, 500, 502, 503, 504})

_MANUAL_DOWNLOAD = (
    f"Or download it manually, unpack {MEMBER}, and set [corpus] source = file, path = <the file> and format = sms."
)


class _TemporaryError(Exception):
    """An attempt failed, and the next one may succeed."""


def fetch_sms_spam_collection(
    url: str,
    folder: Path,
    timeout_seconds: float,
    show_progress: bool,
    sha256: str = SMS_SPAM_COLLECTION_SHA256,
) -> Path:
    """Returns the path of the Collection's file. Downloads it unless it is in the folder already.

    Args:
        url: URL of the published zip, http or https.
        folder: folder of the file; created if needed. Processes that share it wait for each other.
        timeout_seconds: time limit of the whole download, all attempts together; the last attempt may wait for up to
            ten seconds more without receiving a byte.
        show_progress: draw a progress bar on stderr if that is a terminal.
        sha256: expected hash of the file, in hexadecimal.

    Raises:
        InputError: the file cannot be downloaded in time, or has another hash.
    """
    path = folder / MEMBER
    with lock_folder(folder):
        if not path.is_file() or file_sha256(path) != sha256:
            archive = folder / "sms_spam_collection.zip"
            Download(url, archive, time.monotonic() + timeout_seconds, timeout_seconds, show_progress).fetch()
            try:
                extract_member(archive, path, sha256, _mask_url(url))
            finally:
                archive.unlink()
    return path


@dataclass(frozen=True)
class Download:
    """A download that retries and resumes.

    A second file beside the partial one stores its URL and the server's validator. Without the server's confirmation
    that the content is unchanged, the two halves of a resumed download could come from different versions.

    Attributes:
        url: the URL.
        path: file to write; until it is complete, its name ends in .part.
        deadline: value of `time.monotonic` after which reading stops.
        timeout_seconds: the whole time limit, for error messages.
        show_progress: draw a progress bar on stderr if that is a terminal.
    """

    url: str
    path: Path
    deadline: float
    timeout_seconds: float
    show_progress: bool

    @property
    def part(self) -> Path:
        """The partial file."""
        return self.path.with_name(self.path.name + ".part")

    @property
    def origin(self) -> Path:
        """The file with the hash of the URL and the server's validator of the partial file."""
        return self.path.with_name(self.path.name + ".part.json")

    def fetch(self) -> None:
        """Downloads the file. If that fails, the partial file stays, and a later run resumes it.

        Raises:
            InputError: the file cannot be downloaded, or not in time.
        """
        for delay in (*RETRY_DELAYS, None):
            try:
                self._attempt()
                break
            except _TemporaryError as error:
                if delay is None:
                    raise self._input_error(f"{error}, {len(RETRY_DELAYS) + 1} times in a row. Try later.") from None
                log.warning("%s: %s; retrying in %g s", _mask_url(self.url), error, delay)
                time.sleep(min(delay, max(0.0, self.deadline - time.monotonic())))
        os.replace(self.part, self.path)
        self.origin.unlink(missing_ok=True)

    def _attempt(self) -> None:
        # Imported here: the import takes half a second, which a check for completeness must not pay.
        import requests
        import urllib3

        self._remaining_seconds()
        try:
            with requests.Session() as session, self._request(session) as response:
                self._check_status(response)
                self._receive(response)
        except (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError) as error:
            raise _TemporaryError(f"the connection broke ({_describe_error(error)})") from None
        except requests.RequestException as error:
            raise self._input_error(f"{_describe_error(error)}. Correct [corpus] download_url.") from None
        except OSError as error:
            raise self._input_error(f"cannot be saved in {self.path.parent}: {_describe_error(error)}.") from None

    def _request(self, session: requests.Session) -> requests.Response:
        """Requests the missing bytes."""
        timeout = min(READ_TIMEOUT_SECONDS, self._remaining_seconds())
        # identity: a range refers to the bytes as they are sent, and compression does not shrink a zip.
        headers = {"Accept-Encoding": "identity", "User-Agent": "spamscore", **self._range_headers()}
        return session.get(self.url, stream=True, timeout=(timeout, timeout), headers=headers)

    def _range_headers(self) -> dict[str, str]:
        """Returns the headers that request only the missing bytes, if the content on the server is unchanged."""
        validator = None
        with contextlib.suppress(ArtifactError):
            origin = read_json(self.origin)
            validator = origin.get("validator") if origin.get("url_sha256") == self._url_sha256() else None
        if validator and self._received_bytes():
            return {"Range": f"bytes={self._received_bytes()}-", "If-Range": str(validator)}
        return {}

    def _url_sha256(self) -> str:
        # A hash, because the URL may contain a password, which must not be written to a file.
        return hashlib.sha256(self.url.encode()).hexdigest()

    def _received_bytes(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _remaining_seconds(self) -> float:
        remaining = self.deadline - time.monotonic()
        if remaining <= 0:
            raise self._input_error(
                f"expected the whole file within {self.timeout_seconds:g} seconds, received {self._received_bytes()} "
                "bytes. They are kept: run again to resume the download, or raise [corpus] download_timeout."
            )
        return remaining

    def _check_status(self, response: requests.Response) -> None:
        if response.status_code == 416:
            self._discard()
        if response.status_code in _TEMPORARY_STATUS:
            raise _TemporaryError(f"the server returned {response.status_code} {response.reason}")
        if response.status_code not in (200, 206):
            received = f"{response.status_code} {response.reason}"
            raise self._input_error(f"expected status 200, received {received}. Correct [corpus] download_url.")

    def _receive(self, response: requests.Response) -> None:
        """Writes the body to the partial file; appends it if the server sends the missing bytes."""
        start, total = self._parse_range(response)
        self._check_size(total or 0)
        if not start:
            self._discard()
            write_json(self.origin, {"url_sha256": self._url_sha256(), "validator": _validator(response)})
        with self.part.open("r+b" if start else "wb") as file, self._progress_bar(start, total) as advance:
            file.seek(start)
            self._copy(response, file, advance)
        if total is not None and self._received_bytes() < total:
            raise _TemporaryError(f"the connection broke after {self._received_bytes()} of {total} bytes")

    def _parse_range(self, response: requests.Response) -> tuple[int, int | None]:
        """Returns the offset of the body and the size of the whole file in bytes; None if the server names no size."""
        if response.status_code == 200:
            length = response.headers.get("Content-Length", "")
            return 0, int(length) if length.isdecimal() else None
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
        if match is None or int(match[1]) != self._received_bytes():
            self._discard()
            raise _TemporaryError("the server sent another range of the file than the one requested")
        return int(match[1]), int(match[2]) if match[2] != "*" else None

    def _copy(self, response: requests.Response, file: IO[bytes], advance: Callable[[int], None]) -> None:
        # read1 returns as soon as it has any bytes: with a slow server, one read cannot last far beyond the deadline.
        while block := response.raw.read1(2**16, decode_content=False):
            file.write(block)
            file.flush()
            advance(len(block))
            self._check_size(file.tell())
            self._remaining_seconds()

    def _check_size(self, size: int) -> None:
        if size > MAX_BYTES:
            self._discard()
            raise self._input_error(
                f"expected at most {MAX_BYTES} bytes, received {size}. Correct [corpus] download_url."
            )

    def _discard(self) -> None:
        self.part.unlink(missing_ok=True)
        self.origin.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _progress_bar(self, start: int, total: int | None) -> Iterator[Callable[[int], None]]:
        """Shows a progress bar on stderr; yields the function that advances it by a number of bytes."""
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        columns = (TextColumn(self.path.name), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, disable=not (self.show_progress and console.is_terminal)) as progress:
            task = progress.add_task("download", completed=start, total=total)
            yield lambda count: progress.update(task, advance=count)

    def _input_error(self, reason: str) -> InputError:
        return InputError(f"[corpus] download_url = {_mask_url(self.url)}: {reason} {_MANUAL_DOWNLOAD}")


def _validator(response: requests.Response) -> str | None:
    """Returns the validator for a later If-Range, which does not accept a weak ETag (RFC 9110, 13.1.5)."""
    etag = response.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def _mask_url(url: str) -> str:
    """Returns a URL without the parts that may be secret: user and password, and the query."""
    return re.sub(r"\?.*", "?…", re.sub(r"//.*@", "//…@", url))


def _describe_error(error: BaseException) -> str:
    """Returns an error message on one line, without the user, password and query of a URL that it may contain."""
    text = re.sub(r"//\S*@", "//…@", " ".join(str(error).split()))
    return re.sub(r"\?\S*", "?…", text)[:200]


def extract_member(archive: Path, path: Path, sha256: str, url: str) -> None:
    """Extracts the one member, if all names in the archive are safe and the member has the expected hash.

    Args:
        archive: the zip.
        path: file to write; written completely or not at all.
        sha256: expected hash of the member, in hexadecimal.
        url: URL of the archive, for error messages.

    Raises:
        InputError: the archive is damaged or has an unsafe name, or the member is missing or has another hash.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with zipfile.ZipFile(archive) as file:
            received = _unpack(file, _find_member(file, url), partial)
        if received != sha256:
            raise InputError(
                f"{url}: expected a {MEMBER} with SHA-256 {sha256}, received {received}. {_MANUAL_DOWNLOAD}"
            )
        os.replace(partial, path)
    # NotImplementedError: zipfile does not know the compression method. RuntimeError: the archive has a password.
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError) as error:
        raise InputError(
            f"{url}: expected a zip, but it cannot be unpacked: {_describe_error(error)}. {_MANUAL_DOWNLOAD}"
        ) from None
    finally:
        partial.unlink(missing_ok=True)


def _find_member(file: zipfile.ZipFile, url: str) -> zipfile.ZipInfo:
    for member in file.infolist():
        if _is_unsafe(member):
            raise InputError(
                f"{url}: a member of the zip would be written outside its folder: {member.filename!r}. "
                f"{_MANUAL_DOWNLOAD}"
            )
    matches = [member for member in file.infolist() if PurePosixPath(member.filename).name == MEMBER]
    if len(matches) != 1:
        names = ", ".join(repr(name) for name in file.namelist()[:20])
        raise InputError(
            f"{url}: expected one {MEMBER} in the zip, received {len(matches)} among {names}. {_MANUAL_DOWNLOAD}"
        )
    if matches[0].file_size > MAX_BYTES:
        raise InputError(
            f"{url}: expected a {MEMBER} of at most {MAX_BYTES} bytes, received {matches[0].file_size}. "
            f"{_MANUAL_DOWNLOAD}"
        )
    return matches[0]


def _is_unsafe(member: zipfile.ZipInfo) -> bool:
    """Returns whether a member is a link, or its name leads out of the folder on any operating system."""
    names = (member.filename, member.orig_filename)
    return stat.S_ISLNK(member.external_attr >> 16) or any(
        PureWindowsPath(name).drive or PureWindowsPath(name).root or ".." in PureWindowsPath(name).parts
        for name in names
    )


def _unpack(file: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> str:
    """Writes a member to a file and returns its SHA-256. zipfile does not read beyond the size checked before."""
    digest = hashlib.sha256()
    with file.open(member) as source, path.open("wb") as target:
        while block := source.read(2**20):
            digest.update(block)
            target.write(block)
    return digest.hexdigest()
