"""A scored chunk on its way to the database: its rows, the messages refused, and the checksum that does not depend on
order. What commits it, once, is `tasks.database.ledger`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter, lt
from typing import TYPE_CHECKING, Any

from models.errors import ArtifactError
from tasks.database.tables import DETAIL_LENGTH, MESSAGE_ID_LENGTH, REASON_LENGTH

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tasks.sources.snapshots import SnapshotChunk

REPEATED = "repeated message_id"
UNUSABLE = "unusable message_id"

# What has none of these is looked at once more, by `refusal`; Arrow makes a pattern ready for each chunk, and one with
# all that Unicode takes for white space takes it milliseconds.
_SOMETHING = "[!-~]"

_HASH_KEY = b"spamscore row v1"


@dataclass(frozen=True)
class RejectedMessage:
    """A message that has no score, and why.

    Attributes:
        row_number: its row in the snapshot, from 1.
        message_id: its identifier, or None where it has none.
        reason: a code to count by, such as ``empty text``; up to 64 characters.
        detail: what a person wants to know beyond, up to 1000 characters; the rest is cut.
    """

    row_number: int
    message_id: str | None
    reason: str
    detail: str | None = None


def refusal(row_number: int, message_id: str | None, text: str | None, fault: str | None) -> RejectedMessage | None:
    """Why a message cannot be scored, or None if it can. What databases refuse of an identifier is the ledger's."""
    if fault:
        return RejectedMessage(row_number, message_id, "unreadable row", fault)
    if not message_id:
        return RejectedMessage(row_number, message_id, "missing message_id")
    if not text or not text.strip():
        return RejectedMessage(row_number, message_id, "empty text")
    return None


def refusals(chunk: SnapshotChunk) -> dict[int, RejectedMessage]:
    """The messages of a chunk that cannot be scored, by their place in it; `refusal` says why of each."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    said = pc.match_substring_regex(chunk.texts, _SOMETHING)
    suspects = np.flatnonzero(~(
        pc.fill_null(said, False).to_numpy(zero_copy_only=False)
        & chunk.message_ids.is_valid().to_numpy(zero_copy_only=False)
        & pc.fill_null(pc.not_equal(chunk.message_ids, ""), False).to_numpy(zero_copy_only=False)
        & chunk.faults.is_null().to_numpy(zero_copy_only=False)
    ))  # fmt: skip
    columns = [one.take(pa.array(suspects)).to_pylist() for one in (chunk.message_ids, chunk.texts, chunk.faults)]
    found = map(refusal, chunk.row_numbers[suspects].tolist(), *columns)
    return {place: one for place, one in zip(suspects.tolist(), found, strict=True) if one is not None}


@dataclass(frozen=True, eq=False)
class ScoredChunk:
    """The messages of one chunk, each scored or refused.

    Attributes:
        chunk_number: which chunk of the batch it is, from 0.
        first_row: row of the snapshot that the chunk begins with, from 1.
        message_ids: identifiers of the scored messages, in any order, (scored,).
        row_numbers: their rows in the snapshot, (scored,) int64.
        probabilities: probability of spam, (scored,) float64 from 0 to 1, rounded to six decimals.
        flagged: whether it reaches the threshold, (scored,) bool.
        rejected: the messages refused.
        seconds: time that the chunk took, for the report.

    Raises:
        ValueError: the four do not have the same length.
        ArtifactError: a probability is no number from 0 to 1.
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
                f"chunk {self.chunk_number}: expected ids, rows, scores and flags alike, received {lengths}"
            )
        if not ((self.probabilities >= 0) & (self.probabilities <= 1)).all():
            raise ArtifactError(
                f"chunk {self.chunk_number}: expected probabilities from 0 to 1, received others (NaN?). "
                "The model's weights are damaged or training diverged: train again, or go back to the version before."
            )

    @property
    def messages_read(self) -> int:
        """Messages of the chunk, scored or refused."""
        return len(self.message_ids) + len(self.rejected)

    @functools.cached_property
    def _in_order(self) -> bool:
        """Whether each identifier is greater than the one before: they are sorted then, and none is there twice."""
        return all(map(lt, self.message_ids, islice(self.message_ids, 1, None)))

    def checksum(self) -> int:
        """Checksum of the scored rows, as `checksum_rows` takes it."""
        return checksum_rows(self.message_ids, self.probabilities, self.flagged)

    def score_columns(self, batch_id: int) -> dict[str, Any]:
        """Columns of `spam_scores`, sorted by identifier: in the order of the key they go in many times faster."""
        ids, probabilities, flagged = self.message_ids, self.probabilities, self.flagged
        if not self._in_order:
            order = sorted(range(len(ids)), key=ids.__getitem__)
            ids, probabilities, flagged = [ids[place] for place in order], probabilities[order], flagged[order]
        return {
            "batch_id": [batch_id] * len(ids), "message_id": ids, "spam_probability": probabilities, "flagged": flagged,
        }  # fmt: skip

    def rejected_columns(self, batch_id: int) -> dict[str, Any]:
        """Columns of `rejected_messages`, sorted by row number, texts made to fit."""
        rejected = sorted(self.rejected, key=attrgetter("row_number"))
        return {
            "batch_id": [batch_id] * len(rejected),
            "row_number": [int(one.row_number) for one in rejected],
            "message_id": [_fit(one.message_id, MESSAGE_ID_LENGTH) for one in rejected],
            "reason": [_fit(one.reason, REASON_LENGTH) for one in rejected],
            "detail": [_fit(one.detail, DETAIL_LENGTH) for one in rejected],
        }

    def with_sound_ids(self) -> ScoredChunk:
        """The chunk without identifiers that no database keeps, and without those it has twice: these are refused."""
        sound = self.without(self.unusable())
        return sound.without(sound.repeats())

    def unusable(self) -> dict[int, RejectedMessage]:
        """Messages whose identifier not every database keeps as it is, by their place in the chunk."""
        if _is_sound("".join(self.message_ids)) and max(map(len, self.message_ids), default=0) <= MESSAGE_ID_LENGTH:
            return {}
        return {
            place: RejectedMessage(int(self.row_numbers[place]), one, UNUSABLE, _fault(one))
            for place, one in enumerate(self.message_ids)
            if _fault(one)
        }

    def repeats(self) -> dict[int, RejectedMessage]:
        """Messages whose identifier an earlier row of the chunk has, by their place in the chunk."""
        if self._in_order or len(set(self.message_ids)) == len(self.message_ids):
            return {}
        first: dict[str, int] = {}
        found = {}
        for place in self.row_numbers.argsort(kind="stable").tolist():
            row, message_id = int(self.row_numbers[place]), self.message_ids[place]
            if first.setdefault(message_id, row) != row:
                found[place] = RejectedMessage(row, message_id, REPEATED, f"row {first[message_id]} has it already")
        return found

    def known(self, message_ids: set[str]) -> dict[int, RejectedMessage]:
        """Messages whose identifier another chunk of the batch has, by their place in the chunk."""
        return {
            place: RejectedMessage(int(self.row_numbers[place]), one, REPEATED, "another chunk of the batch has it")
            for place, one in enumerate(self.message_ids)
            if one in message_ids
        }

    def without(self, refused: Mapping[int, RejectedMessage]) -> ScoredChunk:
        """The chunk with some messages refused instead of scored, by their place in the chunk."""
        if not refused:
            return self
        kept = [place for place in range(len(self.message_ids)) if place not in refused]
        return dataclasses.replace(
            self,
            message_ids=[self.message_ids[place] for place in kept],
            row_numbers=self.row_numbers[kept],
            probabilities=self.probabilities[kept],
            flagged=self.flagged[kept],
            rejected=[*self.rejected, *refused.values()],
        )


def checksum_rows(message_ids: Sequence[str], probabilities: NDArray[np.float64], flagged: NDArray[np.bool_]) -> int:
    """Sum modulo 2**64 of a 64-bit hash of each row: the same for the same rows in any order and any chunks.

    SipHash of the identifier, with a fixed key, mixed with the probability in millionths and the flag by the finalizer
    of SplitMix64 (Steele, Lea and Flood 2014); of an identifier pandas' `hash_array` gives the same. It finds what was
    lost, doubled or changed, not a forger.

    Args:
        message_ids: identifiers, (rows,).
        probabilities: (rows,) float64 from 0 to 1; digits beyond the sixth decimal do not count.
        flagged: (rows,) bool.
    """
    import numpy as np
    import pyarrow as pa

    from models.hashing.arrow_strings import to_buffers
    from models.hashing.siphash import siphashes

    identifiers = _mix(siphashes(*to_buffers(pa.array(message_ids, pa.large_string())), _HASH_KEY))
    values = np.rint(probabilities * 1e6).astype(np.uint64) * np.uint64(2) + flagged.astype(np.uint64)
    return int(_mix(identifiers ^ _mix(values)).sum(dtype=np.uint64))


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    import numpy as np

    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def add_checksums(checksums: Iterable[int]) -> int:
    """The checksum of all rows, from those of parts of them."""
    return sum(checksums) % 2**64


def show_checksum(checksum: int) -> str:
    """The checksum as it is stored: 16 hexadecimal digits."""
    return f"{checksum:016x}"


def read_checksum(text: str) -> int:
    """The checksum from its 16 hexadecimal digits."""
    return int(text, 16)


def _is_sound(text: str) -> bool:
    """Whether every database keeps a text: PostgreSQL has no NUL, and half a surrogate pair is no UTF-8."""
    return "\0" not in text and (text.isascii() or not any("\ud800" <= one <= "\udfff" for one in text))


def _fault(message_id: str) -> str | None:
    if len(message_id) > MESSAGE_ID_LENGTH:
        return f"{len(message_id)} characters, and {MESSAGE_ID_LENGTH} are kept"
    return None if _is_sound(message_id) else "holds a NUL or half a surrogate pair"


def _fit(text: str | None, length: int) -> str | None:
    """A text cut to the length of its column, with a question mark for what a database would not keep."""
    if text is None:
        return None
    return text[:length].replace("\0", "?").encode("utf-8", "replace").decode("utf-8")
