"""`spamscore api`: starts the front end."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from models.errors import SettingsError
from pipeline.command_group import FAILED
from pipeline.commands.context import read_settings
from pipeline.commands.options import examples, print_note
from tasks.settings.loading import load
from tasks.settings.operation import ConsoleSettings
from tasks.settings.serving import ApiSettings
from tasks.stage import configure_logging

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

    POST /v1/predictions scores messages. The paths of TensorFlow Serving are there too, and with --grpc-port its gRPC
    services. /docs describes the API, /readyz and /metrics are for operation. Another version that is put in service is
    loaded while the one before answers.

    An option takes precedence over its setting in [api] of luigi.cfg. At SIGTERM the command answers the requests that
    it has, for up to [api] drain_seconds, and exits with 0; with 1 if requests are left then. A second SIGTERM ends it
    at once.
    """
    read_settings()
    options: dict[str, Any] = {"host": host, "port": port, "grpc_port": grpc_port, "backend": backend}
    given = {name: value for name, value in options.items() if value is not None}
    settings = dataclasses.replace(load(ApiSettings), **given)
    configure_logging(load(ConsoleSettings))
    try:
        from pipeline.api.server import run_server

        unanswered = run_server(settings, print_note)
    except ModuleNotFoundError as error:
        extra = "api,serving" if str(error.name).startswith("grpc") else "api"
        raise SettingsError(
            f"spamscore api: {error.name} is not installed. Install it: pip install 'spamscore[{extra}]'"
        ) from None
    if unanswered:
        print_note(f"{unanswered} requests were not answered within [api] drain_seconds")
        raise click.exceptions.Exit(FAILED)
