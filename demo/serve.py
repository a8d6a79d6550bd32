"""``make start``: serve until interrupted; studies stay in ``.azurite`` for the next time."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from pathlib import Path

from demo.stack import ROOT, Stack, StackError


def main() -> int:
    """Serve; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m demo.serve", description=__doc__)
    parser.add_argument("--port", type=int, default=7071, help="the port (7071)")
    parser.add_argument("--data", type=Path, default=ROOT / ".azurite", help="where studies stay")
    arguments = parser.parse_args()
    for ending in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl+C: nothing is left running
        signal.signal(ending, signal.default_int_handler)
    try:
        with Stack(folder=arguments.data, port=arguments.port) as stack:
            print(f"\nSlicewatch serves at {stack.url}; Ctrl+C ends it.", flush=True)
            print(f"  health    {stack.url}/api/health", flush=True)
            print(f"  review    {stack.url}/api/review", flush=True)
            print(f"  worklist  {stack.url}/api/worklist", flush=True)
            print(f"  STOW-RS   {stack.url}/api/dicomweb/studies\n", flush=True)
            assert stack.host is not None
            with contextlib.suppress(KeyboardInterrupt):
                status = stack.host.wait()
                # It ends by itself for no good reason: whoever reads this did not end it.
                print(
                    f"error: the Functions host ended with status {status}; what it said last is "
                    "above. Studies and their state are kept: `make start` goes on with them.",
                    file=sys.stderr,
                )
                return 1
    except (StackError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
