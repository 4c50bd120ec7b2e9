"""`spamscore api`: starts the front end."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from pipeline.commands.context import read_settings
from pipeline.commands.options import examples
from tasks.settings.loading import load
from tasks.settings.serving import ApiSettings

_PORT = click.IntRange(0, 65_535)


@click.command(
    short_help="Answer messages over HTTP and gRPC.",
    epilog=examples(
        "spamscore api                                   on 127.0.0.1:8000",
        "spamscore api --port 8080 --grpc-port 8500      also for clients of TensorFlow Serving",
        "spamscore api --backend server                  TensorFlow Serving scores the messages",
    ),
)
@click.option("--host", metavar="ADDRESS", help="Address to listen on.")
@click.option("--port", type=_PORT, metavar="N", help="Port of the REST API and the page; 0 takes a free one.")
@click.option("--grpc-port", type=_PORT, metavar="N", help="Port of TensorFlow Serving's gRPC services; 0 for none.")
@click.option("--backend", type=click.Choice(["local", "server"]), help="Score here, or ask TensorFlow Serving.")
def api(host: str | None, port: int | None, grpc_port: int | None, backend: str | None) -> None:
    """Answer messages with the model version in service, until SIGTERM or ^C.

    An option takes precedence over the setting of the same name in [api] of luigi.cfg.
    """
    read_settings()
    options: dict[str, Any] = {"host": host, "port": port, "grpc_port": grpc_port, "backend": backend}
    given = {name: value for name, value in options.items() if value is not None}
    settings = dataclasses.replace(load(ApiSettings), **given)
    from pipeline.api.server import run_server

    run_server(settings)
