"""Tests which paths of a front end with a token need it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from front_end import FrontEnd, front_end
from servers import free_port

from models.errors import ServerError
from pipeline.client.grpc_client import GrpcClient
from pipeline.client.server import ModelServer

TOKEN = "a-token-that-nobody-guesses"
RIGHT = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def protected(versions: Path) -> Iterator[FrontEnd]:
    # A loopback address that is not the usual one: with a token, the front end may listen anywhere.
    port = str(free_port())
    with front_end(versions, "--grpc-port", port, "--host", "0.0.0.0", SPAMSCORE_API_TOKEN=TOKEN) as running:
        yield running


PROTECTED = [
    ("POST", "/v1/predictions"), ("GET", "/v1/models/spam_ham"), ("GET", "/v1/models/spam_ham/metadata"),
    ("POST", "/v1/models/spam_ham:predict"), ("GET", "/V1/MODELS/spam_ham"), ("GET", "/v1"), ("GET", "/metrics"),
]  # fmt: skip
WRONG = [
    "",
    "Bearer",
    "Bearer wrong",
    f"Bearer {TOKEN}x",
    f"Bearer {TOKEN[:-1]}",
    f"Basic {TOKEN}",
    TOKEN,
    "Bearer \xe9",
]


@pytest.mark.parametrize(("method", "path"), PROTECTED)
def test_an_api_answers_only_with_the_token(protected: FrontEnd, method: str, path: str) -> None:
    for value in WRONG:
        answer = protected.send(method, path, data=b"{}", headers={"Authorization": value.encode("latin-1")})
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer"), value
        assert TOKEN not in answer.text
    assert protected.send(method, path, data=b"{}", headers=RIGHT).status_code != 401


def test_the_right_token_gets_an_answer(protected: FrontEnd) -> None:
    assert protected.post("/v1/predictions", {"messages": ["hello"]}, headers=RIGHT).json()["model_version"] == 1
    assert protected.metric("spamscore_api_ready", headers=RIGHT) == 1


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/docs", "/openapi.json"])
def test_health_and_documentation_need_no_token(protected: FrontEnd, path: str) -> None:
    assert protected.get(path).status_code == 200


def test_the_document_says_which_paths_need_the_token(protected: FrontEnd) -> None:
    document = protected.get("/openapi.json").json()
    secured = {
        path for path, operations in document["paths"].items() for one in operations.values() if one.get("security")
    }
    assert secured == set(document["paths"]) - {"/livez", "/readyz"}


def test_grpc_answers_only_with_the_token(protected: FrontEnd) -> None:
    address = f"127.0.0.1:{protected.grpc_port}"
    with GrpcClient(ModelServer(address, "spam_ham", token=TOKEN)) as client:
        assert client.predict(["hello"]).version == 1
    for token in ("", "wrong"):
        with GrpcClient(ModelServer(address, "spam_ham", token=token)) as client, pytest.raises(ServerError) as failure:
            client.predict(["hello"])
        assert failure.value.kind == "not allowed"


def test_the_token_is_not_logged(protected: FrontEnd) -> None:
    assert TOKEN not in protected.log
