"""The published SMS Spam Collection, from its address to one file of a known hash.

A download that breaks off goes on where it stopped, in this run or the next. The archive is a stranger's: its size is
limited, only the one member is unpacked, and nothing is kept whose hash is not the pinned one. What the rows are is
`tasks.sources.files`'s part.
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

# Of the member, not of the zip: the zip has been packed anew over the years, its content never changed.
SMS_SPAM_COLLECTION_SHA256 = "7d039a24a6083ed9ef0f806ebad56bbb976e3aeb8de05669173bfdc4996c239d"
MEMBER = "SMSSpamCollection"
MAX_BYTES = 64 * 2**20  # of the archive, and of the member; the published ones have 0.2 and 0.5 MB
PAUSES = (1.0, 2.0, 4.0, 8.0)  # seconds before each further attempt
SILENCE_SECONDS = 10.0  # without a byte, after which an attempt counts as broken
_PASSING_STATUS = frozenset({408, 416, 425, 429, 500, 502, 503, 504})

_BY_HAND = (
    f"Or download it by hand, unpack {MEMBER}, and set [corpus] source = file, path = <the file> and format = sms."
)


class _BrokenError(Exception):
    """An attempt that ended early for a reason that may pass."""


def fetch_sms_spam_collection(
    url: str,
    folder: Path,
    timeout_seconds: float,
    show_progress: bool,
    sha256: str = SMS_SPAM_COLLECTION_SHA256,
) -> Path:
    """Gives the Collection's file, downloaded unless it is in the folder already.

    Args:
        url: address of the published zip, http or https.
        folder: where it is kept; made if needed. Processes that share it wait for each other.
        timeout_seconds: what the whole download may take, all attempts together; the last one may be silent for up to
            ten seconds more.
        show_progress: draw a bar on stderr if that is a terminal.
        sha256: the hash that the file must have, in hexadecimal.

    Raises:
        InputError: it cannot be downloaded in time, or is not the file it should be.
    """
    path = folder / MEMBER
    with lock_folder(folder):
        if not path.is_file() or file_sha256(path) != sha256:
            archive = folder / "sms_spam_collection.zip"
            Download(url, archive, time.monotonic() + timeout_seconds, timeout_seconds, show_progress).fetch()
            try:
                extract_member(archive, path, sha256, _shown(url))
            finally:
                archive.unlink()
    return path


@dataclass(frozen=True)
class Download:
    """One download, in as many attempts as it takes.

    Beside the file that grows lies what is known of its origin: without a server's word that it still has the same
    content, two halves could be of two editions.

    Attributes:
        url: the address.
        path: the file to be; until it is whole, it is `path` with .part at its end.
        deadline: when `time.monotonic` reaches it, no more is read.
        timeout_seconds: the time there was, for messages.
        show_progress: draw a bar on stderr if that is a terminal.
    """

    url: str
    path: Path
    deadline: float
    timeout_seconds: float
    show_progress: bool

    @property
    def part(self) -> Path:
        """The file that grows."""
        return self.path.with_name(self.path.name + ".part")

    @property
    def origin(self) -> Path:
        """Where the address and the server's validator for the part are written down."""
        return self.path.with_name(self.path.name + ".part.json")

    def fetch(self) -> None:
        """Downloads the file; what arrived stays for a later run when it fails.

        Raises:
            InputError: it cannot be had, or not in time.
        """
        for pause in (*PAUSES, None):
            try:
                self._attempt()
                break
            except _BrokenError as error:
                if pause is None:
                    raise self._refused(f"{error}, {len(PAUSES) + 1} times in a row. Try later.") from None
                log.warning("%s: %s; trying again in %g s", _shown(self.url), error, pause)
                time.sleep(min(pause, max(0.0, self.deadline - time.monotonic())))
        os.replace(self.part, self.path)
        self.origin.unlink(missing_ok=True)

    def _attempt(self) -> None:
        # Half a second's import that "is it done?" must not pay.
        import requests
        import urllib3

        self._remaining()
        try:
            with requests.Session() as session, self._asked(session) as response:
                self._check_status(response)
                self._receive(response)
        except (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError) as error:
            raise _BrokenError(f"the connection broke ({_reason(error)})") from None
        except requests.RequestException as error:
            raise self._refused(f"{_reason(error)}. Correct [corpus] download_url.") from None
        except OSError as error:
            raise self._refused(f"cannot be kept in {self.path.parent}: {_reason(error)}.") from None

    def _asked(self, session: requests.Session) -> requests.Response:
        """The server's answer to a request for what is missing."""
        wait = min(SILENCE_SECONDS, self._remaining())
        # identity: a range is one of the bytes as they are sent, and a zip gains nothing.
        headers = {"Accept-Encoding": "identity", "User-Agent": "spamscore", **self._range()}
        return session.get(self.url, stream=True, timeout=(wait, wait), headers=headers)

    def _range(self) -> dict[str, str]:
        """Asks for the rest alone, if the server has what the part was begun with."""
        validator = None
        with contextlib.suppress(ArtifactError):
            origin = read_json(self.origin)
            validator = origin.get("validator") if origin.get("url_sha256") == self._url_sha256() else None
        if validator and self._have():
            return {"Range": f"bytes={self._have()}-", "If-Range": str(validator)}
        return {}

    def _url_sha256(self) -> str:
        # The address may hold a password, which belongs in no file of ours.
        return hashlib.sha256(self.url.encode()).hexdigest()

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _remaining(self) -> float:
        remaining = self.deadline - time.monotonic()
        if remaining <= 0:
            raise self._refused(
                f"expected the whole file within {self.timeout_seconds:g} seconds, received {self._have()} bytes, "
                "which are kept: run again to go on. Raise [corpus] download_timeout."
            )
        return remaining

    def _check_status(self, response: requests.Response) -> None:
        if response.status_code == 416:
            self._forget()
        if response.status_code in _PASSING_STATUS:
            raise _BrokenError(f"the server answered {response.status_code} {response.reason}")
        if response.status_code not in (200, 206):
            received = f"{response.status_code} {response.reason}"
            raise self._refused(f"expected status 200, received {received}. Correct [corpus] download_url.")

    def _receive(self, response: requests.Response) -> None:
        """Writes the body to the part: behind what is there, if the server sends the rest of it."""
        start, total = self._span(response)
        self._check_size(total or 0)
        if not start:
            self._forget()
            write_json(self.origin, {"url_sha256": self._url_sha256(), "validator": _validator(response)})
        with self.part.open("r+b" if start else "wb") as file, self._bar(start, total) as advance:
            file.seek(start)
            self._copy(response, file, advance)
        if total is not None and self._have() < total:
            raise _BrokenError(f"the connection broke after {self._have()} of {total} bytes")

    def _span(self, response: requests.Response) -> tuple[int, int | None]:
        """Where the body begins, and how long the whole file is, as far as the server says."""
        if response.status_code == 200:
            length = response.headers.get("Content-Length", "")
            return 0, int(length) if length.isdecimal() else None
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
        if found is None or int(found[1]) != self._have():
            self._forget()
            raise _BrokenError("the server sent another part of the file than it was asked for")
        return int(found[1]), int(found[2]) if found[2] != "*" else None

    def _copy(self, response: requests.Response, file: IO[bytes], advance: Callable[[int], None]) -> None:
        # read1 returns what is there: a server that trickles cannot hold one read until the time is long over.
        while block := response.raw.read1(2**16, decode_content=False):
            file.write(block)
            file.flush()
            advance(len(block))
            self._check_size(file.tell())
            self._remaining()

    def _check_size(self, size: int) -> None:
        if size > MAX_BYTES:
            self._forget()
            raise self._refused(f"expected at most {MAX_BYTES} bytes, received {size}. Correct [corpus] download_url.")

    def _forget(self) -> None:
        self.part.unlink(missing_ok=True)
        self.origin.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _bar(self, start: int, total: int | None) -> Iterator[Callable[[int], None]]:
        """A progress bar on stderr; gives the function that moves it by some bytes."""
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        columns = (TextColumn(self.path.name), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, disable=not (self.show_progress and console.is_terminal)) as progress:
            task = progress.add_task("download", completed=start, total=total)
            yield lambda count: progress.update(task, advance=count)

    def _refused(self, reason: str) -> InputError:
        return InputError(f"[corpus] download_url = {_shown(self.url)}: {reason} {_BY_HAND}")


def _validator(response: requests.Response) -> str | None:
    """What proves later that the server still has the same content: If-Range takes no weak ETag (RFC 9110, 13.1.5)."""
    etag = response.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def _shown(url: str) -> str:
    """The address without what may be secret in it: user and password, and the query."""
    return re.sub(r"\?.*", "?…", re.sub(r"//.*@", "//…@", url))


def _reason(error: BaseException) -> str:
    """What went wrong, on one line, without the query of the address that it may quote."""
    return re.sub(r"\?\S*", "?…", " ".join(str(error).split())[:200])


def extract_member(archive: Path, path: Path, sha256: str, url: str) -> None:
    """Unpacks the one member, if all of the archive is harmless and the member what it should be.

    Args:
        archive: the zip.
        path: file to write; it is there whole or not at all.
        sha256: the hash that it must have, in hexadecimal.
        url: where the archive is from, for messages.

    Raises:
        InputError: the archive is damaged, or has members that it should not; or the member has another hash.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with zipfile.ZipFile(archive) as file:
            received = _unpack(file, _wanted(file, url), partial)
        if received != sha256:
            raise InputError(f"{url}: expected a {MEMBER} with SHA-256 {sha256}, received {received}. {_BY_HAND}")
        os.replace(partial, path)
    # NotImplementedError and RuntimeError: a way of packing that zipfile does not know, and a password.
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError) as error:
        raise InputError(f"{url}: expected a zip, but it cannot be unpacked: {_reason(error)}. {_BY_HAND}") from None
    finally:
        partial.unlink(missing_ok=True)


def _wanted(file: zipfile.ZipFile, url: str) -> zipfile.ZipInfo:
    for member in file.infolist():
        if _is_evil(member):
            raise InputError(f"{url}: a member of the zip would leave its folder: {member.filename!r}. {_BY_HAND}")
    found = [member for member in file.infolist() if PurePosixPath(member.filename).name == MEMBER]
    if len(found) != 1:
        names = ", ".join(repr(name) for name in file.namelist()[:20])
        raise InputError(f"{url}: expected one {MEMBER} in the zip, received {len(found)} among {names}. {_BY_HAND}")
    if found[0].file_size > MAX_BYTES:
        raise InputError(
            f"{url}: expected a {MEMBER} of at most {MAX_BYTES} bytes, received {found[0].file_size}. {_BY_HAND}"
        )
    return found[0]


def _is_evil(member: zipfile.ZipInfo) -> bool:
    """Whether a member is a link, or its name leads out of the folder on any system."""
    names = (member.filename, member.orig_filename)
    return stat.S_ISLNK(member.external_attr >> 16) or any(
        PureWindowsPath(name).drive or PureWindowsPath(name).root or ".." in PureWindowsPath(name).parts
        for name in names
    )


def _unpack(file: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> str:
    """Writes a member to a file and returns its SHA-256; zipfile reads no further than the size checked before."""
    digest = hashlib.sha256()
    with file.open(member) as source, path.open("wb") as target:
        while block := source.read(2**20):
            digest.update(block)
            target.write(block)
    return digest.hexdigest()
