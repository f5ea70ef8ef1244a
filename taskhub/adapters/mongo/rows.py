"""Domain values as documents and back. JSON of users is bytes: no name of theirs is a field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec

from taskhub.adapters.mongo.client import Binary
from taskhub.domain.audit import AuditEntry, Outcome
from taskhub.domain.dag import DagSpec, FailPolicy
from taskhub.domain.event import NOTHING, Event, EventName
from taskhub.domain.log import Level, LogChunk, LogSegment, Stream
from taskhub.domain.result import NO_EXIT_CODE, Output
from taskhub.domain.run import RunHeader, RunStatus, Source
from taskhub.domain.task import Status, TaskSpec
from taskhub.ports.store import Batch, RunRow, RunUpdate, TaskOutput, TaskRow, TaskUpdate

pack: Final = msgspec.msgpack.Encoder().encode
unpack: Final = msgspec.msgpack.Decoder().decode

Document = dict[str, Any]

RUN_STATE: Final = ("start_ms", "end_ms", "success", "failed", "skipped", "message")
TASK_STATE: Final = ("attempt", "exit_code", "duration_ms", "message", "start_ms", "end_ms")
PENDING: Final[Document] = {
    "status": Status.PENDING.value,
    **dict(zip(TASK_STATE, (0, NO_EXIT_CODE, 0, "", 0, 0), strict=True)),
}


def run_document(header: RunHeader, dag: DagSpec) -> Document:
    """Return what never changes of a run."""
    document = {
        "_id": header.ord,
        "run_id": header.run_id,
        "name": header.name,
        "folded": header.name.casefold(),
        "source": header.source.value,
        "created_ms": header.created_ms,
        "first_task_id": header.first_task_id,
        "owner": header.owner,
        "parent_run_id": header.parent_run_id,
        "total": len(dag.tasks),
        "dag": Binary(pack(replace(dag, tasks=()))),
    }
    if header.unique_key:
        document["key"] = header.unique_key
    if header.number:
        document["number"] = header.number
    return document


def run_state(run: RunUpdate) -> Document:
    """Return what changes of a run."""
    return {"status": run.status.value, **dict(zip(RUN_STATE, run[2:], strict=True))}


def run_row(document: Mapping[str, Any]) -> RunRow:
    """Rebuild a run's row."""
    state = RunUpdate(
        document["run_id"],
        RunStatus(document["status"]),
        *(document[name] for name in RUN_STATE),
    )
    return RunRow(header=run_header(document), total=document["total"], state=state)


def run_header(document: Mapping[str, Any]) -> RunHeader:
    """Rebuild a run's header."""
    return RunHeader(
        run_id=document["run_id"],
        ord=document["_id"],
        name=document["name"],
        source=Source(document["source"]),
        created_ms=document["created_ms"],
        first_task_id=document["first_task_id"],
        owner=document["owner"],
        parent_run_id=document["parent_run_id"],
        unique_key=document.get("key", ""),
        number=document.get("number", 0),
    )


def dag_spec(packed: bytes, tasks: Sequence[TaskSpec]) -> DagSpec:
    """Rebuild a DAG from what its run's document says, and its tasks."""
    value = unpack(packed)
    return DagSpec(
        name=value["name"],
        tasks=tuple(tasks),
        fail_policy=FailPolicy(value["fail_policy"]),
        max_parallel=value["max_parallel"],
    )


def task_document(header: RunHeader, index: int, spec: TaskSpec) -> Document:
    """Return what never changes of a task."""
    document = {
        "_id": header.first_task_id + index,
        "run_id": header.run_id,
        "task_id": spec.id,
        "name": spec.name,
        "spec": Binary(pack(spec)),
    }
    if header.number:
        document["number"] = header.number
        document["folded"] = header.name.casefold()
    return document


def task_state(task: TaskUpdate) -> Document:
    """Return what changes of a task."""
    state: Document = dict(zip(TASK_STATE, task[4:10], strict=True))
    state["status"] = task.status.value
    state["metadata"] = Binary(pack(task.metadata)) if task.metadata else None
    return state


def task_row(document: Mapping[str, Any]) -> TaskRow:
    """Rebuild a task's row."""
    metadata = document.get("metadata")
    state = TaskUpdate._make(
        (
            document["_id"],
            document["run_id"],
            document["task_id"],
            Status(document["status"]),
            *(document[name] for name in TASK_STATE),
            unpack(metadata) if metadata else {},
        )
    )
    return TaskRow(spec=task_spec(document["spec"]), state=state)


def task_spec(packed: bytes) -> TaskSpec:
    """Rebuild a task's spec."""
    return TaskSpec.from_json(unpack(packed))


def events_document(events: Sequence[Event]) -> Document:
    """Return events of one run as one document."""
    first, last = events[0], events[-1]
    rows = [(e.id, e.seq, e.ts_ms, e.name.value, e.task_id, e.extra) for e in events]
    return {
        "_id": first.id,
        "run_id": first.run_id,
        "seq": first.seq,
        "last_seq": last.seq,
        "last_id": last.id,
        "tasks": list(dict.fromkeys(e.task_id for e in events)),
        "names": list(dict.fromkeys(e.name.value for e in events)),
        "events": Binary(pack(rows)),
    }


def events_of(document: Mapping[str, Any]) -> list[Event]:
    """Rebuild the events of a document, in order."""
    run_id = document["run_id"]
    return [
        Event(i, run_id, seq, ts_ms, EventName(name), task_id, extra or NOTHING)
        for i, seq, ts_ms, name, task_id, extra in unpack(document["events"])
    ]


def chunk_document(chunk: LogChunk) -> Document:
    """Return lines as a document; the text is one string, for it compresses and decodes best."""
    text = "\n".join(line for segment in chunk.segments for line in segment.lines)
    if text.count("\n") != max(chunk.count, 1) - 1:
        raise ValueError(f"chunk {chunk.id} does not hold {chunk.count} lines")
    meta = [
        (s.attempt, s.stream, s.level, s.ts_ms, s.duration_ms, len(s.lines), s.continued, s.fields)
        for s in chunk.segments
    ]
    return {
        "_id": chunk.id,
        "run_id": chunk.run_id,
        "task_id": chunk.task_id,
        "first_seq": chunk.first_seq,
        "last_seq": chunk.last_seq,
        "count": chunk.count,
        "size": chunk.size,
        "ts_ms": chunk.ts_ms,
        "meta": Binary(pack(meta)),
        "text": Binary(text.encode()),
    }


def chunk_of(document: Mapping[str, Any]) -> LogChunk:
    """Rebuild a chunk."""
    lines = document["text"].decode().split("\n")
    segments = []
    start = 0
    for attempt, stream, level, ts_ms, duration, count, continued, fields in unpack(
        document["meta"]
    ):
        segment = LogSegment(
            attempt=attempt,
            stream=Stream(stream),
            level=Level(level),
            ts_ms=ts_ms,
            duration_ms=duration,
            lines=lines[start : start + count],
            continued=continued,
            fields=fields,
        )
        segments.append(segment)
        start += count
    return LogChunk(
        id=document["_id"],
        run_id=document["run_id"],
        task_id=document["task_id"],
        first_seq=document["first_seq"],
        count=document["count"],
        size=document["size"],
        ts_ms=document["ts_ms"],
        segments=tuple(segments),
    )


def audit_document(entry: AuditEntry) -> Document:
    """Return an entry of the audit as a document."""
    document: Document = entry._asdict()
    document["_id"] = document.pop("id")
    document["outcome"] = entry.outcome.value
    document["detail"] = Binary(pack(entry.detail)) if entry.detail else None
    return document


def audit_entry(document: Mapping[str, Any]) -> AuditEntry:
    """Rebuild an entry of the audit."""
    values = {name: document[name] for name in AuditEntry._fields if name != "id"}
    values["outcome"] = Outcome(document["outcome"])
    values["detail"] = unpack(document["detail"]) if document["detail"] else {}
    return AuditEntry(id=document["_id"], **values)


def encode_batch(batch: Batch) -> bytes:
    """Return a batch as bytes for the ledger."""
    return pack(batch)


def decode_batch(payload: bytes) -> Batch:
    """Rebuild a batch; no bytes are an empty one."""
    if not payload:
        return Batch()
    value = unpack(payload)
    return Batch(
        new_runs=[(_header(header), _dag(dag)) for header, dag in value["new_runs"]],
        runs=[RunUpdate(row[0], RunStatus(row[1]), *row[2:]) for row in value["runs"]],
        tasks=[TaskUpdate._make((*row[:3], Status(row[3]), *row[4:])) for row in value["tasks"]],
        outputs=[TaskOutput(row[0], row[1], Output(**row[2])) for row in value["outputs"]],
        events=[Event._make((*row[:4], EventName(row[4]), *row[5:])) for row in value["events"]],
        audit=[AuditEntry._make((*row[:7], Outcome(row[7]), row[8])) for row in value["audit"]],
        last_number=value["last_number"],
    )


def _header(value: Document) -> RunHeader:
    return RunHeader(**{**value, "source": Source(value["source"])})


def _dag(value: Document) -> DagSpec:
    tasks = [TaskSpec.from_json(task) for task in value["tasks"]]
    return dag_spec(pack({**value, "tasks": []}), tasks)


def encode_chunks(documents: Sequence[Document]) -> bytes:
    """Return documents of chunks as bytes for the ledger."""
    return pack([{**document, **_plain(document)} for document in documents])


def _plain(document: Document) -> Document:
    return {"meta": bytes(document["meta"]), "text": bytes(document["text"])}


def decode_chunks(payload: bytes) -> list[Document]:
    """Rebuild documents of chunks; no bytes are none."""
    return unpack(payload) if payload else []
