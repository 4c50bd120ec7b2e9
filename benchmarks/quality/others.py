"""Messages of other people: how much of their spam a model catches that was trained on the corpus.

Each `*.tsv` file of a folder is a set: one message a line, a label, a tab and a text. The set of ham only is the chat
that sets the thresholds, because a filter must be judged by the share of personal messages that it flags.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from protocol import Corpus, FloatArray, read_corpus

SHARES = (0.005, 0.01)
HAM_BLOCKED_SHARE = 0.002  # the default of [scoring] ham_blocked_share
# Spam caught at each of the shares.
TARGETS = {"smishing": (0.86, 0.92), "comments": (0.45, 0.54)}
TARGET_CHAT = 0.0038
CHAT_FLAGGED = "chat flagged"  # the last column


def read_others(folder: Path) -> dict[str, Corpus]:
    """Reads the sets by name.

    Raises:
        ValueError: no set, or more than one, consists of ham only.
    """
    sets = {path.stem: read_corpus(path) for path in sorted(folder.glob("*.tsv"))}
    find_chat(sets)
    return sets


def find_chat(sets: dict[str, Corpus]) -> str:
    """Returns the name of the set of ham only."""
    chat = [name for name, messages in sets.items() if not messages.labels.any()]
    if len(chat) != 1:
        raise ValueError(
            f"expected one file *.tsv with ham only, which sets the thresholds, received {len(chat)} of {len(sets)} "
            "files"
        )
    return chat[0]


def caught_at(spam: FloatArray, chat: FloatArray, share: float) -> float:
    """Returns the share of spam above the probability that a share of the chat exceeds."""
    return float((spam > np.quantile(chat, 1 - share)).mean())


def compute_row(sets: dict[str, Corpus], probabilities: dict[str, FloatArray]) -> dict[str, float]:
    """Returns the figures of a model by column: spam caught in each set at each share, and chat flagged at one half."""
    chat = find_chat(sets)
    row = {
        f"{name}, {100 * share:g} %": caught_at(probabilities[name][messages.labels == 1], probabilities[chat], share)
        for name, messages in sets.items()
        if name != chat
        for share in SHARES
    }
    return {**row, CHAT_FLAGGED: float((probabilities[chat] >= 0.5).mean())}


def list_targets(columns: list[str]) -> dict[str, float]:
    """Returns the targets of the columns that have one."""
    targets = {
        f"{name}, {100 * share:g} %": target
        for name, values in TARGETS.items()
        for share, target in zip(SHARES, values, strict=True)
    }
    return {column: value for column, value in {**targets, CHAT_FLAGGED: TARGET_CHAT}.items() if column in columns}
