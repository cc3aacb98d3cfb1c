"""`python -m mlserver_chat.testing [--port PORT]` runs the OpenAI-compatible test server until it is interrupted."""

import os

import click

from .openai_server import OpenAIServer


@click.command(help="Serve an OpenAI-compatible chat API on 127.0.0.1 that echoes the last message.")
@click.option("--port", default=0, show_default="a free one", help="Port to listen on.")
def main(port: int) -> None:
    """Print the server's base URL and serve."""
    try:
        server = OpenAIServer(port)
    except OSError as error:
        raise click.ClickException(f"port {port} can't be used: {os.strerror(error.errno or 0)}") from error
    click.echo(server.base_url)
    server.serve()


if __name__ == "__main__":
    main(prog_name="python -m mlserver_chat.testing")
