"""``python -m edge``: run the agent, show how it is doing, offer again what stays."""

from __future__ import annotations

import argparse
import fcntl
import logging
import os
import signal
import sys
import warnings
from pathlib import Path

from edge.agent import Agent, AgentFailed, open_journal, spool_in
from edge.config import Config, load
from edge.database import DatabaseDamaged, DatabaseUnavailable
from edge.entries import State
from edge.pseudonyms import KeyTooShort, Pseudonyms
from edge.toml_table import ConfigError
from slicewatch.model_registry import ModelError

_SWITCH_S = 0.001


def main() -> int:
    """Exit status: 0 done, 1 the agent failed, 2 the configuration or the call is wrong."""
    arguments = _parser().parse_args()
    try:
        config = load(arguments.config)
    except ConfigError as error:
        print(f"edge: {error}", file=sys.stderr)
        return 2
    match arguments.command:
        case "run":
            return _run(config, arguments.log_level)
        case "status":
            from edge.status_table import show

            live = sys.stdout.isatty() and not (arguments.once or arguments.json)
            return show(config, as_json=arguments.json, live=live, every_s=arguments.every)
        case "release":
            return _release(config, State(arguments.state), arguments.study)
        case _:
            return _resolve(config, arguments.pseudonym)


def _run(config: Config, log_level: str) -> int:
    logging.basicConfig(
        level=log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    # These two tell of every request and every PDU.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    # This one quotes values that it finds odd, and they may be a patient's.
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module="pydicom")
    # Most threads wait for disk or network: one that computes must not make them wait long.
    sys.setswitchinterval(_SWITCH_S)
    os.umask(0o077)
    config.spool.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (config.spool.folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print(f"edge: another agent uses {config.spool.folder}", file=sys.stderr)
            return 2
        try:
            agent = Agent(config)
        except DatabaseUnavailable as unavailable:
            # Another start may find room.
            print(f"edge: {unavailable}", file=sys.stderr)
            return 1
        except DatabaseDamaged as damaged:
            print(f"edge: {damaged}; restore it from its backup", file=sys.stderr)
            return 2
        except (OSError, ModelError, KeyTooShort) as error:
            print(f"edge: {error}", file=sys.stderr)
            return 2
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: agent.stop())
        agent.start()
        try:
            agent.run()
        except AgentFailed as failed:
            logging.getLogger("edge").critical("%s", failed)
            return 1
        finally:
            agent.close()
    return 0


def _release(config: Config, state: State, study: str) -> int:
    journal = open_journal(spool_in(config.spool.folder))
    try:
        print(f"{journal.release(state, study)} objects will be sent")
    finally:
        journal.close()
    return 0


def _resolve(config: Config, pseudonym: str) -> int:
    """Print what a pseudonym of the cloud stands for; 1 when it is none of this site's."""
    if config.deidentify is None:
        print("edge: this site does not de-identify: names are the same", file=sys.stderr)
        return 2
    key = config.deidentify.key_file.read_bytes().strip()
    pseudonyms = Pseudonyms(key, config.spool.folder / "pseudonyms.sqlite")
    try:
        found = pseudonyms.inside("uid", pseudonym) or pseudonyms.inside("patient", pseudonym)
    finally:
        pseudonyms.close()
    print(found or "unknown here", file=sys.stdout if found else sys.stderr)
    return 0 if found else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m edge", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="receive, keep and send until interrupted")
    run.add_argument("--log-level", default="INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR"))
    status = commands.add_parser("status", help="spool, queue, oldest, rate, errors")
    status.add_argument("--json", action="store_true", help="as JSON, once")
    status.add_argument("--once", action="store_true", help="once, also on a terminal")
    status.add_argument("--every", type=float, default=2.0, metavar="SECONDS")
    release = commands.add_parser("release", help="offer again what was refused or kept")
    release.add_argument("state", choices=(State.REFUSED.value, State.KEPT.value))
    release.add_argument("--study", default="", metavar="UID", help="of one study only")
    resolve = commands.add_parser("resolve", help="what a pseudonym stands for")
    resolve.add_argument("pseudonym")
    for command in (run, status, release, resolve):
        command.add_argument("--config", type=Path, default=Path("edge.toml"), metavar="FILE")
    return parser


if __name__ == "__main__":
    sys.exit(main())
