"""Start a server on the checkout, run the example on it, and show both to whoever is watching."""

from __future__ import annotations

import argparse
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "etc/examples/checkout-report.json"
FOLLOWER = ROOT / "etc/examples/follow.py"
USER, PASSWORD = "admin", "123456"  # of every server that runs with --dev


def main() -> int:
    """Do what the flags say; return the exit code of the run."""
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    data_dir = options.data_dir.resolve()
    data_dir.mkdir(parents=True, exist_ok=True)
    try:
        with running_server(data_dir, options.port or free_port()) as (server, url):
            print(f"Server   {url}  (its log: {data_dir / 'server.log'})", flush=True)
            outcome = follow(url)
            if not options.once:
                _invite(url)
                server.wait()
    except KeyboardInterrupt:
        print("\nStopped.")
        return 0
    return outcome


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bin/demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="stop when the run is over")
    parser.add_argument("--port", type=int, help="default: 8082, or a free one if that is taken")
    parser.add_argument(
        "--data-dir", type=Path, default=ROOT / "var/demo", help="default: var/demo"
    )
    return parser


def free_port() -> int:
    """Return 8082 if it can be had, else 0, which lets the server choose."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", 8082))
        except OSError:
            return 0
    return 8082


@contextmanager
def running_server(data_dir: Path, port: int) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a server while the block runs; yields it and its URL once it accepts connections."""
    command = [sys.executable, "-m", "taskhub", "--dev", "--port", str(port)]
    log = data_dir / "server.log"
    with log.open("w") as stderr:
        server = subprocess.Popen(
            [*command, "--data-dir", str(data_dir)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,  # Ctrl-C is ours; the server is then stopped in order
        )
    with server:
        try:
            line = server.stdout.readline() if server.stdout else ""
            if not line:
                sys.exit(f"The server did not start:\n{log.read_text()}")
            yield server, line.split()[-1]
        finally:
            server.terminate()
            server.wait()


def follow(url: str) -> int:
    """Run the example and show it; return the follower's exit code."""
    login = ["--user", USER, "--password", PASSWORD]
    return subprocess.run([sys.executable, FOLLOWER, url, EXAMPLE, *login], check=False).returncode


def _invite(url: str) -> None:
    print(
        f"\nThe server goes on at {url}; log in as {USER} / {PASSWORD}. For example:\n\n"
        f"  curl -s {url}/api/login -H 'Content-Type: application/json' \\\n"
        f'    -d \'{{"username": "{USER}", "password": "{PASSWORD}"}}\'\n\n'
        "README.md shows what to do with the token. Ctrl-C stops the server.",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
