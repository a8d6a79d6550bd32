"""The command line: ``python -m local_host start``."""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from local_host.errors import HostError
from local_host.host import Host, StartOptions
from local_host.keys import default_secrets_dir
from local_host.settings import HostSettings, load_settings
from local_host.worker import configure_logging


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line; exits with status 2 for a wrong one."""
    parser = argparse.ArgumentParser(prog="local_host", description="A local Functions host.")
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("start", help="serve a Functions app until interrupted")
    start.add_argument("--app", type=Path, default=Path.cwd(), help="the app's folder (.)")
    start.add_argument("--port", "-p", type=int, help="the port (7071); 0 takes a free one")
    start.add_argument("--address", default="127.0.0.1", help="the address (127.0.0.1)")
    start.add_argument(
        "--enableAuth", "--enable-auth", action="store_true", help="ask for function keys"
    )
    start.add_argument("--secrets", type=Path, help="the folder of the function keys")
    start.add_argument(
        "--functions", nargs="+", default=[], help="serve these functions and the durable ones"
    )
    start.add_argument("--log-level", help="host.json logging.logLevel.default of this run")
    start.add_argument("--verbose", action="store_true", help="the same as --log-level Debug")
    start.add_argument(
        "--shutdown-timeout",
        type=float,
        default=10.0,
        metavar="S",
        help="seconds that running functions get at the end (10)",
    )
    return parser.parse_args(arguments)


def main() -> int:
    """Run the command; the exit status."""
    arguments = parse_arguments(sys.argv[1:])
    app_dir = arguments.app.resolve()
    secrets = arguments.secrets or default_secrets_dir(app_dir)
    level = "Debug" if arguments.verbose else arguments.log_level
    try:
        settings = load_settings(app_dir, os.environ, port=arguments.port, log_level=level)
        configure_logging(settings.log_level)
        options = StartOptions(
            address=arguments.address,
            secrets_dir=secrets if arguments.enableAuth else None,
            shutdown_timeout=arguments.shutdown_timeout,
            functions=tuple(arguments.functions),
        )
        asyncio.run(_run(settings, options))
    except HostError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


async def _run(settings: HostSettings, options: StartOptions) -> None:
    await Host(settings, options).run()


if __name__ == "__main__":
    sys.exit(main())
