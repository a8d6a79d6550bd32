"""``make start``: serve until interrupted; studies stay in ``.azurite`` for the next time."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path

from demo.stack import ROOT, Stack, StackError


def main() -> int:
    """Serve; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m demo.serve", description=__doc__)
    parser.add_argument("--port", type=int, default=7071, help="the port (7071)")
    parser.add_argument("--data", type=Path, default=ROOT / ".azurite", help="where studies stay")
    arguments = parser.parse_args()
    try:
        with Stack(folder=arguments.data, port=arguments.port) as stack:
            print(f"\nSlicewatch serves at {stack.url}; Ctrl+C ends it.", flush=True)
            print(f"  health    {stack.url}/api/health", flush=True)
            print(f"  worklist  {stack.url}/api/worklist", flush=True)
            print(f"  STOW-RS   {stack.url}/api/dicomweb/studies\n", flush=True)
            assert stack.host is not None
            with contextlib.suppress(KeyboardInterrupt):
                return stack.host.wait()
    except (StackError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
