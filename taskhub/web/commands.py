"""What a client says over the socket, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from taskhub.domain.task import ID_PATTERN, ID_RULE, JSON
from taskhub.errors import InvalidError
from taskhub.services.live import Feed, Interest
from taskhub.spec import strict_json

MAX_DEPTH: Final = 8


class Op(StrEnum):
    """What a client may ask for."""

    SUBSCRIBE = "subscribe"
    UNSUBSCRIBE = "unsubscribe"
    PING = "ping"


OPS: Final = dict(enumerate(Op))
FEEDS: Final = dict(enumerate(Feed))


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One wish; `interests` are those of a subscribe or unsubscribe."""

    op: Op
    interests: Sequence[Interest] = ()
    from_seq: int | None = None
    ack: bool = False


def parse_message(message: str) -> Mapping[str, JSON]:
    """Return the JSON object of a message; raise `InvalidError`."""
    value = strict_json.parse(message.encode(), max_depth=MAX_DEPTH)
    if not isinstance(value, dict):
        raise InvalidError("a message must be a JSON object")
    return value


def to_command(message: Mapping[str, JSON]) -> Command:
    """Return the command of a message; raise `InvalidError` with the first thing that is wrong."""
    op = _op(message.get("op"))
    if op is Op.PING:
        return Command(op=op)
    feed = _feed(message.get("topic"))
    run_id = _id(message, "run_id")
    interests = tuple(Interest(feed, task_id, run_id) for task_id in _task_ids(message))
    if not run_id and not all(interest.task_id for interest in interests):
        raise InvalidError("task_id: required, or a run_id to watch a whole run")
    if op is Op.UNSUBSCRIBE:
        return Command(op=op, interests=interests)
    from_seq = _from_seq(message.get("from"))
    if from_seq is not None and not run_id:
        raise InvalidError("from: needs a run_id, for lines and events are numbered per run")
    return Command(op=op, interests=interests, from_seq=from_seq, ack=_flag(message.get("ack")))


def _op(value: JSON) -> Op:
    if type(value) is int and value in OPS:
        return OPS[value]
    if isinstance(value, str) and value in set(Op):
        return Op(value)
    raise InvalidError("op: must be subscribe, unsubscribe or ping")


def _feed(value: JSON) -> Feed:
    if type(value) is int and value in FEEDS:
        return FEEDS[value]
    if isinstance(value, str) and value in set(Feed):
        return Feed(value)
    raise InvalidError("topic: must be task_logs or task_events")


def _task_ids(message: Mapping[str, JSON]) -> Sequence[str]:
    if "task_ids" not in message:
        return (_id(message, "task_id"),)
    ids = message["task_ids"]
    if "task_id" in message:
        raise InvalidError("task_ids: not together with task_id")
    if not isinstance(ids, list) or not ids or not all(_is_id(value) for value in ids):
        raise InvalidError(f"task_ids: must be a list of ids of {ID_RULE}")
    return tuple(dict.fromkeys(str(value) for value in ids))


def _id(message: Mapping[str, JSON], name: str) -> str:
    """Return an id, empty if there is none."""
    value = message.get(name)
    if value is None or value == "":
        return ""
    if not _is_id(value):
        raise InvalidError(f"{name}: must be {ID_RULE}")
    return str(value)


def _is_id(value: JSON) -> bool:
    return isinstance(value, str) and ID_PATTERN.fullmatch(value) is not None


def _from_seq(value: JSON) -> int | None:
    if value is None or (type(value) is int and value >= 1):
        return value
    raise InvalidError("from: must be an integer of 1 or more")


def _flag(value: JSON) -> bool:
    if value is None or isinstance(value, bool):
        return bool(value)
    raise InvalidError("ack: must be true or false")
