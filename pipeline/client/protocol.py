"""gRPC and the messages of TensorFlow Serving, without TensorFlow.

The generated modules of tensorflow-serving-api import `tensorflow.core`, and with it the package `tensorflow`, which
takes four seconds and 700 MB. The messages need none of it. So while the generated modules are imported, an empty
package stands in for `tensorflow`; afterwards, TensorFlow itself can be imported as usual.

Import this module before a thread imports TensorFlow.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from types import ModuleType

from models.errors import SettingsError

# The C core of gRPC would write every failed connection to standard error; an exception reports it.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")


@contextlib.contextmanager
def _without_tensorflow() -> Iterator[None]:
    """Lets modules below `tensorflow` be imported without running the package itself."""
    found = importlib.util.find_spec("tensorflow") if "tensorflow" not in sys.modules else None
    if found is None:  # TensorFlow is imported already, or not installed
        yield
        return
    package = ModuleType("tensorflow")
    package.__path__ = list(found.submodule_search_locations or ())
    sys.modules["tensorflow"] = package
    try:
        yield
    finally:
        del sys.modules["tensorflow"]


try:
    with _without_tensorflow():
        import grpc
        import grpc.aio as grpc_aio
        from tensorflow.core.example import example_pb2
        from tensorflow.core.framework import types_pb2
        from tensorflow.core.protobuf import saved_model_pb2
        from tensorflow_serving.apis import (
            classification_pb2,
            get_model_metadata_pb2,
            get_model_status_pb2,
            model_service_pb2,
            model_service_pb2_grpc,
            predict_pb2,
            prediction_service_pb2,
            prediction_service_pb2_grpc,
        )
except ModuleNotFoundError as error:
    raise SettingsError(
        f"gRPC and the protocol of TensorFlow Serving: {error.name} is not installed. Install it: "
        "pip install 'spamscore[serving]'"
    ) from None

__all__ = [
    "classification_pb2",
    "example_pb2",
    "get_model_metadata_pb2",
    "get_model_status_pb2",
    "grpc",
    "grpc_aio",
    "model_service_pb2",
    "model_service_pb2_grpc",
    "predict_pb2",
    "prediction_service_pb2",
    "prediction_service_pb2_grpc",
    "saved_model_pb2",
    "types_pb2",
]
