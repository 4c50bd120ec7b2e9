"""Calls the signature `predict_spam` of a SavedModel with one message at a time, and prints the seconds."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import tensorflow as tf


def main() -> None:
    """Takes the folder of the SavedModel, a JSON file of messages, and how many of them only warm up."""
    folder, texts, warm_up = sys.argv[1], json.loads(Path(sys.argv[2]).read_text("utf-8")), int(sys.argv[3])
    loaded = tf.saved_model.load(folder)
    predict = loaded.signatures["predict_spam"]
    seconds = []
    for text in texts:
        start = time.perf_counter()
        predict(texts=tf.constant([text]))["scores"].numpy()
        seconds.append(time.perf_counter() - start)
    print(json.dumps(seconds[warm_up:]))


if __name__ == "__main__":
    main()
