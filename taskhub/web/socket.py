"""The socket over which clients watch runs live; the protocol is in `docs/` under WebSocket."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from socket import IPPROTO_TCP, TCP_NOTSENT_LOWAT
from typing import Any, Final, cast

from tornado.websocket import WebSocketHandler, WebSocketProtocol13

from taskhub.domain.event import Event
from taskhub.domain.log import LogChunk
from taskhub.errors import InvalidError, TooManyError, UnauthorizedError, UnavailableError
from taskhub.services.auth import AuthService
from taskhub.services.live import SLOW, TRY_AGAIN, Interest, LiveHub, Session
from taskhub.services.standing import STANDS_BY
from taskhub.web.commands import Command, Op, parse_message, to_command
from taskhub.web.credential import Credential
from taskhub.web.frames import Frames
from taskhub.web.outbox import Outbox
from taskhub.web.problems import envelope

POLICY: Final = 1008
UNAUTHORIZED: Final = "unauthorized"
ERROR_LENGTH: Final = 500
AT_ONCE: Final = 16
FIRST_MESSAGE: Final = 8 * 1024
"""Characters of the message with the token: anybody may send one, and it is parsed on the loop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketSettings:
    """Limits of one connection; those of what is pending are the hub's."""

    auth_timeout_s: float = 5.0
    ping_s: float = 30.0
    abort_s: float = 1.0
    message_bytes: int = 64 * 1024
    commands: int = 30
    window_s: float = 10.0
    unsent_bytes: int = 128 * 1024


class TaskHubSocket(WebSocketHandler):
    """One connection: the way in for commands, and the `Sink` of its session.

    Nothing is sent before a token was seen to be good. Closing waits for nobody: the block under
    way and the close frame are left to the kernel, and what is not taken in `abort_s` is dropped.
    """

    def initialize(
        self,
        hub: LiveHub,
        auth: AuthService,
        frames: Frames,
        settings: SocketSettings | None = None,
    ) -> None:
        self._hub = hub
        self._frames = frames  # remembers the last it made, so all sockets share it
        self._limits = settings or SocketSettings()
        self._credential = Credential(auth, hub.clock, partial(self.close, POLICY, UNAUTHORIZED))
        self._session: Session | None = None
        self._closing = False
        self._commands: deque[int] = deque(maxlen=self._limits.commands)
        self._timers: list[asyncio.TimerHandle] = []

    @property
    def ping_interval(self) -> float:
        return self._limits.ping_s

    @property
    def max_message_size(self) -> int:
        return self._limits.message_bytes

    def check_origin(self, origin: str) -> bool:  # noqa: ARG002  # Tornado's signature
        return True  # the application's gate has refused other sites' pages already

    def finish(self, chunk: str | bytes | dict[str, Any] | None = None) -> Future[None]:
        if self.get_status() >= HTTPStatus.BAD_REQUEST:  # no upgrade: it stays plain HTTP
            message = chunk if isinstance(chunk, str) else HTTPStatus(self.get_status()).phrase
            chunk = envelope(self.get_status(), message)
        return super().finish(chunk)

    def write_error(self, status_code: int, **_: Any) -> None:
        self.finish(HTTPStatus(status_code).phrase)

    def open(self, *_: str, **__: str) -> None:
        self._stream = cast(WebSocketProtocol13, self.ws_connection).stream
        self._outbox = Outbox(
            self._stream,
            stall_s=self._hub.limits.stall_s,
            on_room=self._on_room,
            on_stall=partial(self.close, TRY_AGAIN, SLOW),
        )
        self._stream.set_nodelay(True)
        self._stream.socket.setsockopt(IPPROTO_TCP, TCP_NOTSENT_LOWAT, self._limits.unsent_bytes)
        try:
            self._session = self._hub.connect(self)
        except TooManyError as exc:
            self.close(TRY_AGAIN, str(exc))
        else:
            self._later(self._limits.auth_timeout_s, self._require_token)

    async def on_message(self, message: str | bytes) -> None:
        if self._session is None or self._closing:
            return
        try:
            await self._handle(self._session, message)
        except UnauthorizedError:
            self.close(POLICY, UNAUTHORIZED)
        except UnavailableError:
            self.close(TRY_AGAIN, "try again later")
        except (InvalidError, TooManyError) as exc:
            if self._session.authenticated:
                self._session.say({"type": "error", "message": str(exc)[:ERROR_LENGTH]})
            else:
                self.close(POLICY, UNAUTHORIZED)

    def on_close(self) -> None:
        self._release()
        for timer in self._timers:
            timer.cancel()

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        if not self._closing:
            self._closing = True
            self._release()
            super().close(code, reason)
            self._later(self._limits.abort_s, self._stream.close)

    def has_room(self, *, firm: bool) -> bool:
        if not self._is_within_limits(firm=firm):
            self._outbox.flush()  # much may come in one turn of the loop, and the peer may take it
        return self._is_within_limits(firm=firm)

    def send_lines(self, chunk: LogChunk, from_seq: int, *, firm: bool) -> None:
        self._outbox.add(self._frames.lines(chunk, from_seq), firm=firm)

    def send_event(self, event: Event, *, numbered: bool, firm: bool) -> None:
        self._outbox.add(self._frames.event(event, numbered=numbered), firm=firm)

    def send_message(self, message: Mapping[str, Any], *, firm: bool = True) -> None:
        self._outbox.add(self._frames.message(message), firm=firm)

    async def _handle(self, session: Session, message: str | bytes) -> None:
        is_first = not session.authenticated
        if not is_first and not self._is_in_time():
            return
        if isinstance(message, bytes):
            raise InvalidError("a message must be text")
        if is_first and len(message) > FIRST_MESSAGE:
            raise InvalidError("the first message is too long")
        fields = parse_message(message)
        await self._credential.check(fields.get("token"))
        if not self._hub.has_news:
            self.close(TRY_AGAIN, STANDS_BY)
        if self._closing:
            return
        session.authenticated = True
        if is_first and "op" not in fields:
            session.say({"type": "authed"})
        elif not is_first or self._is_in_time():
            await _obey(session, to_command(fields))

    def _is_in_time(self) -> bool:
        """Count a command; close the connection if there were too many lately."""
        now_ms = self._hub.clock.monotonic_ms()
        oldest_counts = self._commands and now_ms - self._commands[0] < self._limits.window_s * 1000
        if oldest_counts and len(self._commands) == self._limits.commands:
            self.close(POLICY, "rate limit")
            return False
        self._commands.append(now_ms)
        return True

    def _require_token(self) -> None:
        if self._session is not None and not self._session.authenticated:
            self.close(POLICY, UNAUTHORIZED)

    def _is_within_limits(self, *, firm: bool) -> bool:
        limits = self._hub.limits
        load = self._outbox.firm if firm else self._outbox.all
        return load.messages <= limits.messages and load.bytes <= limits.bytes

    def _on_room(self) -> None:
        if self._session is not None and self._is_within_limits(firm=False):
            self._session.drained()

    def _later(self, delay_s: float, call: Callable[[], None]) -> None:
        self._timers.append(asyncio.get_running_loop().call_later(delay_s, call))

    def _release(self) -> None:
        """Let go of everything but the connection. Idempotent."""
        self._credential.close()
        if self._session is not None:
            self._session.close()
            self._outbox.close()


async def _obey(session: Session, command: Command) -> None:
    match command.op:
        case Op.PING:
            session.say({"type": "pong"})
        case Op.UNSUBSCRIBE:
            for interest in command.interests:
                session.unsubscribe(interest)
        case Op.SUBSCRIBE:
            await _subscribe(session, command)


async def _subscribe(session: Session, command: Command) -> None:
    """Subscribe a few at a time: 200 at once, from many sockets, would stop the loop."""
    interests = command.interests
    session.check(interests, command.from_seq)
    for start in range(0, len(interests), AT_ONCE):
        part = interests[start : start + AT_ONCE]
        session.subscribe(part, command.from_seq)
        for interest in part if command.ack else ():
            session.say(_acknowledgement(interest))
        await asyncio.sleep(0)


def _acknowledgement(interest: Interest) -> Mapping[str, Any]:
    return {
        "type": "subscribed",
        "topic": interest.feed,
        "task_id": interest.task_id,
        "run_id": interest.run_id,
    }
