"""Defines a scored chunk: its rows for the database, its rejected messages, and its order-independent checksum.

`tasks.database.ledger` commits a chunk exactly once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter, gt
from typing import TYPE_CHECKING, Any

from models.errors import ArtifactError
from tasks.database.tables import DETAIL_LENGTH, MESSAGE_ID_LENGTH, REASON_LENGTH

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tasks.sources.snapshots import SnapshotChunk

REPEATED_MESSAGE_ID = "repeated message_id"
UNUSABLE_MESSAGE_ID = "unusable message_id"

# A text without any of these characters is checked again by `find_rejection`. Arrow compiles the pattern for each
# chunk, and a pattern of all Unicode white space takes milliseconds to compile.
_PRINTABLE_ASCII = "[!-~]"

_HASH_KEY = b"spamscore row v1"


@dataclass(frozen=True)
class RejectedMessage:
    """A message that has no score, and why.

    Attributes:
        row_number: row of the message in the snapshot, from 1.
        message_id: its identifier, or None if it has none.
        reason: why it was rejected, such as ``empty text``. Reports count by it. Up to 64 characters are stored.
        detail: more about the reason, for a person. Up to 1000 characters are stored.
    """

    row_number: int
    message_id: str | None
    reason: str
    detail: str | None = None


def find_rejection(
    row_number: int, message_id: str | None, text: str | None, fault: str | None, first_row: int | None = None
) -> RejectedMessage | None:
    """Returns the rejection of a message that cannot be scored, or None.

    Args:
        row_number: row of the message in the snapshot, from 1.
        message_id: its identifier.
        text: the message.
        fault: why the row cannot be read.
        first_row: the earlier row that keeps the identifier, if there is one.
    """
    if fault:
        return RejectedMessage(row_number, message_id, "unreadable row", fault)
    if not message_id:
        return RejectedMessage(row_number, message_id, "missing message_id")
    if not text or not text.strip():
        return RejectedMessage(row_number, message_id, "empty text")
    if detail := _find_fault(message_id):
        return RejectedMessage(row_number, message_id, UNUSABLE_MESSAGE_ID, detail)
    if first_row:
        return RejectedMessage(row_number, message_id, REPEATED_MESSAGE_ID, f"row {first_row} has it already")
    return None


def find_rejections(chunk: SnapshotChunk) -> dict[int, RejectedMessage]:
    """Returns the rejections of the messages of a chunk that cannot be scored, by their index in the chunk.

    A vectorized filter picks the candidates; `find_rejection` decides on each of them.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    id_bytes = pc.binary_length(chunk.message_ids)
    conditions = [
        pc.match_substring_regex(chunk.texts, _PRINTABLE_ASCII),
        pc.greater(id_bytes, 0),
        pc.less_equal(id_bytes, MESSAGE_ID_LENGTH),
        pc.invert(pc.match_substring(chunk.message_ids, "\0")),
        chunk.faults.is_null(),
        chunk.first_rows.is_null(),
    ]
    is_valid = [pc.fill_null(condition, False).to_numpy(zero_copy_only=False) for condition in conditions]
    candidates = np.flatnonzero(~np.logical_and.reduce(is_valid))
    columns = [
        column.take(pa.array(candidates)).to_pylist()
        for column in (chunk.message_ids, chunk.texts, chunk.faults, chunk.first_rows)
    ]
    rejections = map(find_rejection, chunk.row_numbers[candidates].tolist(), *columns)
    return {
        index: rejection
        for index, rejection in zip(candidates.tolist(), rejections, strict=True)
        if rejection is not None
    }


@dataclass(frozen=True, eq=False)
class ScoredChunk:
    """The messages of one chunk, each scored or rejected.

    Attributes:
        chunk_number: number of the chunk in the batch, from 0.
        first_row: first row of the chunk in the snapshot, from 1.
        message_ids: identifiers of the scored messages, in any order, (scored,).
        row_numbers: their rows in the snapshot, (scored,) int64.
        probabilities: spam probabilities, (scored,) float64 from 0 to 1, rounded to six decimals.
        flagged: whether each probability reaches the threshold, (scored,) bool.
        rejected: the rejected messages.
        seconds: time spent on the chunk, for the report.

    Raises:
        ValueError: identifiers, rows, probabilities and flags differ in length.
        ArtifactError: a probability is not a number from 0 to 1.
    """

    chunk_number: int
    first_row: int
    message_ids: list[str]
    row_numbers: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    flagged: NDArray[np.bool_]
    rejected: Sequence[RejectedMessage]
    seconds: float

    def __post_init__(self) -> None:
        lengths = [len(self.message_ids), len(self.row_numbers), len(self.probabilities), len(self.flagged)]
        if len(set(lengths)) != 1:
            raise ValueError(
                f"chunk {self.chunk_number}: expected as many rows, scores and flags as ids, received lengths {lengths}"
            )
        if not ((self.probabilities >= 0) & (self.probabilities <= 1)).all():
            raise ArtifactError(
                f"chunk {self.chunk_number}: expected probabilities from 0 to 1, received other values (NaN?). "
                "The weights of the model are damaged or its training diverged: train again, or serve an older version."
            )

    @property
    def messages_read(self) -> int:
        """Number of messages in the chunk, scored or rejected."""
        return len(self.message_ids) + len(self.rejected)

    def checksum(self) -> int:
        """Returns the checksum of the scored rows, computed by `checksum_rows`."""
        return checksum_rows(self.message_ids, self.probabilities, self.flagged)

    def score_columns(self, batch_id: int) -> dict[str, Any]:
        """Returns the columns of `spam_scores`, sorted by identifier: inserts in key order are many times faster."""
        ids, probabilities, flagged = self.message_ids, self.probabilities, self.flagged
        if any(map(gt, ids, islice(ids, 1, None))):
            order = sorted(range(len(ids)), key=ids.__getitem__)
            ids, probabilities, flagged = [ids[index] for index in order], probabilities[order], flagged[order]
        return {
            "batch_id": [batch_id] * len(ids), "message_id": ids, "spam_probability": probabilities, "flagged": flagged,
        }  # fmt: skip

    def rejected_columns(self, batch_id: int) -> dict[str, Any]:
        """Returns the columns of `rejected_messages`, sorted by row number, with texts cut to the column lengths."""
        rejected = sorted(self.rejected, key=attrgetter("row_number"))
        return {
            "batch_id": [batch_id] * len(rejected),
            "row_number": [int(message.row_number) for message in rejected],
            "message_id": [_truncate(message.message_id, MESSAGE_ID_LENGTH) for message in rejected],
            "reason": [_truncate(message.reason, REASON_LENGTH) for message in rejected],
            "detail": [_truncate(message.detail, DETAIL_LENGTH) for message in rejected],
        }


def checksum_rows(message_ids: Sequence[str], probabilities: NDArray[np.float64], flagged: NDArray[np.bool_]) -> int:
    """Returns the sum modulo 2**64 of a 64-bit hash of each row: equal for equal rows in any order and any chunks.

    The hash is the SipHash of the identifier, with a fixed key, mixed with the probability in millionths and the flag
    by the finalizer of SplitMix64 (Steele, Lea and Flood 2014). For an identifier, pandas' `hash_array` gives the same
    hash. The checksum detects lost, duplicated and changed rows; it does not protect against forgery.

    Args:
        message_ids: identifiers, (rows,).
        probabilities: (rows,) float64 from 0 to 1; digits after the sixth decimal are ignored.
        flagged: (rows,) bool.
    """
    import numpy as np
    import pyarrow as pa

    from models.hashing.arrow_strings import to_buffers
    from models.hashing.siphash import siphashes

    id_hashes = _mix(siphashes(*to_buffers(pa.array(message_ids, pa.large_string())), _HASH_KEY))
    values = np.rint(probabilities * 1e6).astype(np.uint64) * np.uint64(2) + flagged.astype(np.uint64)
    return int(_mix(id_hashes ^ _mix(values)).sum(dtype=np.uint64))


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    import numpy as np

    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def add_checksums(checksums: Iterable[int]) -> int:
    """Returns the checksum of all rows, from the checksums of their parts."""
    return sum(checksums) % 2**64


def format_checksum(checksum: int) -> str:
    """Returns a checksum as it is stored: 16 hexadecimal digits."""
    return f"{checksum:016x}"


def parse_checksum(text: str) -> int:
    """Returns the checksum that 16 hexadecimal digits stand for."""
    return int(text, 16)


def _find_fault(message_id: str) -> str | None:
    """Returns why an identifier cannot be stored in every database, or None if it can."""
    if len(message_id) > MESSAGE_ID_LENGTH:
        return f"{len(message_id)} characters, and {MESSAGE_ID_LENGTH} are kept"
    return "holds a NUL" if "\0" in message_id else None


def _truncate(text: str | None, length: int) -> str | None:
    """Cuts a text to the length of its column, and replaces characters that no database stores by question marks."""
    if text is None:
        return None
    return text[:length].replace("\0", "?").encode("utf-8", "replace").decode("utf-8")
