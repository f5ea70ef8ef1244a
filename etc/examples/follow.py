"""Submit a DAG and show what happens, live: a client of the API in one file.

    python etc/examples/follow.py http://127.0.0.1:8082 dag.json --user admin

Exits with 0 if the run succeeded, 1 if it did not.
"""

from __future__ import annotations

import argparse
import asyncio
import getpass
import json
import os
import sys
import textwrap
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

COLOURS = {"green": 32, "red": 31, "yellow": 33, "cyan": 36, "grey": 90, "bold": 1}
STATUS_COLOURS = {"success": "green", "failed": "red", "timeout": "red", "canceled": "red"}
MARKS, FANCY_MARKS = ">|=x~-", "▶│✔✘↻·"
STDERR = 2
NO_ANSWER = 599  # Tornado's own


class Client:
    """The few calls that a run needs."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.token = ""

    async def login(self, user: str, password: str) -> None:
        answer = await self.call("/api/login", {"username": user, "password": password})
        self.token = answer["token"]

    async def call(self, path: str, body: object = None) -> Any:  # noqa: ANN401  # it is JSON
        """GET, or POST a body; return the answer's `data`, or stop with what the server says."""
        request = HTTPRequest(
            self.url + path,
            method="GET" if body is None else "POST",
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"},
            body=None if body is None else json.dumps(body),
        )
        try:
            response = await AsyncHTTPClient().fetch(request, raise_error=False)
        except OSError as error:
            sys.exit(f"{self.url} does not answer: {error.strerror or error}")
        if response.code == NO_ANSWER:
            sys.exit(f"{self.url} does not answer: {response.error}")
        answer = json.loads(response.body)
        if response.code != HTTPStatus.OK:
            sys.exit(f"{path}: {response.code} {answer['error']}")
        return answer["data"]

    async def subscribe(self, run_id: str, *topics: str) -> WebSocketClientConnection:
        """Open a socket on which all that the run does and prints arrives, from its start."""
        socket = await websocket_connect(self.url.replace("http", "ws", 1) + "/ws")
        for topic in topics:
            command = {"op": "subscribe", "topic": topic, "task_id": "", "run_id": run_id}
            await socket.write_message(json.dumps(command | {"token": self.token, "from": 1}))
        return socket


class Screen:
    """Prints one line for each thing that happens: when, to which task, what."""

    def __init__(self, task_ids: list[str]) -> None:
        self.width = max(map(len, task_ids))
        self.next_seq = dict.fromkeys(task_ids, 1)
        self.report = ""
        self.start_ms = 0
        self.has_colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self.marks = dict(zip(MARKS, FANCY_MARKS if self.has_colours else MARKS, strict=True))

    def paint(self, text: str, *colours: str) -> str:
        if not self.has_colours:
            return text
        codes = ";".join(str(COLOURS[colour]) for colour in colours)
        return f"\033[{codes}m{text}\033[0m"

    def line(self, ts_ms: int, task_id: str, mark: str, text: str, colour: str) -> None:
        clock = self.paint(f"{max(0, ts_ms - self.start_ms) / 1000:6.2f}s", "grey")
        name = self.paint(f"{task_id:<{self.width}}", "cyan")
        print(f"{clock}  {name}  {self.paint(self.marks[mark], colour)} {text}", flush=True)

    def log(self, message: dict[str, Any]) -> None:
        self.next_seq[message["task_id"]] = message["seq"] + 1
        if message["message"].startswith("report: "):
            self.report = message["message"].removeprefix("report: ")
        is_error = message["stream"] == STDERR
        colour = "yellow" if is_error else "grey"
        self.line(message["ts_ms"], message["task_id"], "|", message["message"], colour)

    def event(self, message: dict[str, Any]) -> None:
        extra = message["extra"]
        match message["event"]:
            case "run_start":
                self.start_ms = message["ts_ms"]
                return
            case "attempt_start":
                again = f", attempt {extra['attempt']}" if extra["attempt"] > 1 else ""
                mark, text, colour = ">", f"started{again}", "bold"
            case "attempt_end" if extra.get("retry_at_ms"):
                pause = (extra["retry_at_ms"] - message["ts_ms"]) / 1000
                mark, colour = "~", "yellow"
                text = f"exit code {extra['exit_code']}; another attempt in {pause:.1f} s"
            case "attempt_end":
                word = extra["status_name"]
                mark, colour = "=" if word == "success" else "x", STATUS_COLOURS.get(word, "grey")
                text = f"{word} after {extra['duration_ms']} ms"
            case "dag_node_skipped":
                mark, text, colour = "-", f"skipped: {extra['reason']}", "grey"
            case _:
                return
        self.line(message["ts_ms"], message["task_id"], mark, text, colour)

    def summary(self, view: dict[str, Any]) -> None:
        print(f"\n{'task':<{self.width}}  {'status':<8}  attempts  {'ms':>6}")
        for task in view["task_runs"]:
            status = self.paint(
                f"{task['status_name']:<8}", STATUS_COLOURS.get(task["status_name"], "grey")
            )
            numbers = f"{task['attempt']:>8}  {task['duration_ms']:>6}"
            print(f"{task['logical_id']:<{self.width}}  {status}  {numbers}")
        run = view["run"]
        seconds = (run["end_ts_ms"] - run["start_ts_ms"]) / 1000
        word = self.paint(run["status_name"], STATUS_COLOURS[run["status_name"]], "bold")
        print(f"\nRun {run['run_id']}: {word} in {seconds:.1f} s")


def show_report(path: Path) -> None:
    """Print where the report is and its first table, if the run wrote one on this machine."""
    if path.is_file():
        print(f"\nIts report is {path}; it begins:\n")
        beginning = "\n\n".join(path.read_text().split("\n\n")[:3])
        print(textwrap.indent(beginning, "    "))


async def show_rest(client: Client, run_id: str, screen: Screen) -> None:
    """Show the lines that the end of a very short run overtook; most often there are none."""
    for task_id, seq in tuple(screen.next_seq.items()):
        query = urlencode({"task_id": task_id, "run_id": run_id, "from": seq})
        for record in (await client.call(f"/api/tasks/logs?{query}"))["records"]:
            screen.log(record)


async def follow(client: Client, dag: dict[str, Any]) -> int:
    """Run the DAG and show it; return the exit code."""
    run_id = (await client.call("/api/dag/run_async", dag))["run_id"]
    screen = Screen([task["id"] for task in dag["tasks"]])
    print(f"Run      {run_id}: {dag.get('name', '')}, {len(dag['tasks'])} tasks\n")
    socket = await client.subscribe(run_id, "task_events", "task_logs")
    while (text := await socket.read_message()) is not None:
        message = json.loads(text)
        if message.get("type") == "log":
            screen.log(message)
        elif message.get("type") == "event":
            screen.event(message)
            if message["event"] == "run_end":
                break
    socket.close()
    await show_rest(client, run_id, screen)
    view = await client.call(f"/api/dag/runs/{run_id}")
    screen.summary(view)
    show_report(Path(screen.report))
    return 0 if view["run"]["status_name"] == "success" else 1


async def main() -> int:
    """Do what the arguments say; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("url")
    parser.add_argument("file", type=Path)
    parser.add_argument("--user", required=True)
    parser.add_argument("--password", help="asked for if not given")
    options = parser.parse_args()
    client = Client(options.url)
    await client.login(options.user, options.password or getpass.getpass())
    return await follow(client, json.loads(options.file.read_text()))


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
