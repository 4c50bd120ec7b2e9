"""The options that say which model server to ask, and how; the settings of [serving] are their defaults."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from pipeline.commands.context import read_settings
from pipeline.commands.options import POSITIVE_INTEGER, Command

if TYPE_CHECKING:
    from pipeline.client.server import ModelServer

_OPTIONS = (
    click.option("--server", metavar="ADDRESS", help="Address of the server; with --rest also a URL."),
    click.option("--rest", is_flag=True, help="Use the REST API instead of gRPC."),
    click.option("--model", metavar="NAME", help="Name of the model; default: [artifacts] model_name."),
    click.option("--model-version", type=POSITIVE_INTEGER, metavar="N", help="Ask this version instead of a label."),
    click.option("--label", metavar="NAME", help="Ask the version with this label; default: stable."),
    click.option("--timeout", type=click.FloatRange(min=0.01), metavar="SECONDS", help="Time for a call."),
    click.option("--tls", is_flag=True, help="Connect over TLS; the three files below switch it on too."),
    click.option("--ca-file", type=click.Path(), metavar="FILE", help="Authorities, PEM; default: the public ones."),
    click.option("--certificate", type=click.Path(), metavar="FILE", help="Client certificate, PEM, for mutual TLS."),
    click.option("--key", type=click.Path(), metavar="FILE", help="Key of the client certificate, PEM."),
)


def server_options(command: Command) -> Callable[..., Any]:
    """Adds the options, and passes the server that they describe to the command as `server`, and `rest`."""

    @functools.wraps(command)
    def with_server(
        *,
        server: str | None,
        rest: bool,
        model: str | None,
        model_version: int | None,
        label: str | None,
        timeout: float | None,
        tls: bool,
        ca_file: str | None,
        certificate: str | None,
        key: str | None,
        **arguments: Any,
    ) -> Any:
        if model_version is not None and label is not None:
            raise click.UsageError("expected --model-version or --label, received both")
        read_settings()
        from pipeline.client.server import configured_server

        described: ModelServer = configured_server(
            rest,
            model,
            model_version,
            label,
            **{"rest_server" if rest else "server": server},
            timeout=timeout,
            tls=tls or None,
            ca_file=ca_file,
            certificate_file=certificate,
            key_file=key,
        )
        return command(server=described, rest=rest, **arguments)

    for option in reversed(_OPTIONS):
        with_server = option(with_server)
    return with_server
