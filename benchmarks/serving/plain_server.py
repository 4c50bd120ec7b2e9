"""The baseline: a plain server over the SavedModel, on the same ASGI server, that also batches what waits.

This is what one writes in an afternoon: Starlette, a queue, and the signature `predict_spam` in a worker thread.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import tensorflow as tf
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

_MAX_BATCH = 512


class SavedModelServer:
    """Answers `{"messages": [...]}` with the scores of the SavedModel; requests that wait share a call."""

    def __init__(self, folder: str) -> None:
        self._loaded = tf.saved_model.load(folder)
        self._predict = self._loaded.signatures["predict_spam"]
        self._predict(texts=tf.constant(["hello"]))
        self._waiting: asyncio.Queue[tuple[list[str], asyncio.Future[list[float]]]] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1)

    def score(self, texts: list[str]) -> list[float]:
        """Returns the spam probabilities of messages."""
        scores: list[float] = self._predict(texts=tf.constant(texts))["scores"].numpy().tolist()
        return scores

    async def run(self) -> None:
        """Scores what waits, together, again and again."""
        loop = asyncio.get_running_loop()
        while True:
            calls = [await self._waiting.get()]
            while not self._waiting.empty() and sum(len(texts) for texts, _ in calls) < _MAX_BATCH:
                calls.append(self._waiting.get_nowait())
            scores = await loop.run_in_executor(
                self._thread, self.score, [text for texts, _ in calls for text in texts]
            )
            for texts, answer in calls:
                answer.set_result(scores[: len(texts)])
                scores = scores[len(texts) :]

    async def answer(self, request: Request) -> JSONResponse:
        """Answers a request."""
        texts = json.loads(await request.body())["messages"]
        answer: asyncio.Future[list[float]] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((texts, answer))
        return JSONResponse({"scores": await answer})


def main() -> None:
    """Serves the SavedModel of a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    server = SavedModelServer(options.folder)

    @contextlib.asynccontextmanager
    async def lifespan(_application: Any) -> AsyncIterator[None]:
        batching = asyncio.create_task(server.run())
        yield
        batching.cancel()

    application = Starlette(routes=[Route("/v1/predictions", server.answer, methods=["POST"])], lifespan=lifespan)
    uvicorn.run(application, port=options.port, access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
