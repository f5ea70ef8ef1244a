"""Making runs."""

from __future__ import annotations

import re
from typing import Final

from taskhub.domain.dag import DagSpec
from taskhub.domain.task import JSON
from taskhub.errors import GraphError, InvalidError, Problem
from taskhub.ports.executor import Executors
from taskhub.services.deadline import in_time
from taskhub.services.runs import NOT_KNOWN, RunService
from taskhub.spec.dag import load_dag
from taskhub.spec.fields import Fields, Findings
from taskhub.web.base import INLINE_BYTES, ApiHandler
from taskhub.web.problems import Answer
from taskhub.web.views import run_result, task_ids, tasks_size

KEY: Final = re.compile(r"[!-~]([ -~]{0,126}[!-~])?")
START: Final = ("failed", "start")


class MakingHandler(ApiHandler):
    """Base of what makes runs."""

    runs: RunService

    def idempotency_key(self) -> str:
        """Return the header's key, or an empty string."""
        key = self.request.headers.get("Idempotency-Key", "")
        if "Idempotency-Key" in self.request.headers and not KEY.fullmatch(key):
            raise InvalidError("Idempotency-Key must be 1 to 128 printable ASCII characters")
        return key


class DagHandler(MakingHandler):
    """Base of the two routes that take a DAG."""

    executors: Executors

    async def spec(self, body: JSON) -> DagSpec:
        """Return the DAG in the body, or raise with all that is wrong."""
        limits = self.gate.settings.spec
        if self.received <= INLINE_BYTES:
            return load_dag(body, self.executors, limits)
        return await self.gate.offload.run(load_dag, body, self.executors, limits)


class DagRunHandler(DagHandler):
    """/api/dag/run: answers when the run has ended, which goes on if the client does not wait."""

    answers = {GraphError: Answer(500, 500)}  # noqa: RUF012  # declared on the base

    async def post(self) -> None:
        key = self.idempotency_key()
        spec = await self.spec(await self.body())
        run_id = await self.runs.submit(spec, owner=self.username, key=key, origin=self.origin)
        view = await self.while_connected(self.runs.wait(run_id))
        secrets = self.gate.secrets
        await self.reply_large(lambda: run_result(view, secrets), tasks_size(view.tasks))


class DagRunAsyncHandler(DagHandler):
    """/api/dag/run_async: answers when the run is stored."""

    async def post(self) -> None:
        key = self.idempotency_key()
        body = await self.body()
        if not isinstance(body, dict) or not isinstance(body.get("tasks"), list):
            raise InvalidError([Problem("", "tasks must be array")])
        spec = await self.spec(body)
        async with in_time(NOT_KNOWN):
            run_id = await self.runs.submit(spec, owner=self.username, key=key, origin=self.origin)
            if key:  # it may be the run of an earlier request with other tasks
                spec = (await self.runs.get(run_id)).spec
        self.ok({"run_id": run_id, "task_ids": task_ids([task.id for task in spec.tasks])})


class RerunHandler(MakingHandler):
    """/api/dag/runs/{run_id}/rerun."""

    async def post(self, run_id: str) -> None:
        findings = Findings()
        fields = Fields.of(await self.optional_body(), "", findings)
        fields.only(frozenset({"from"}))
        start = fields.text("from", "failed")
        if start not in START:
            fields.wrong("from", f"must be {' or '.join(START)}")
        findings.raise_any()
        new_id = await self.runs.rerun(
            run_id,
            from_failed=start == "failed",
            owner=self.username,
            key=self.idempotency_key(),
            origin=self.origin,
        )
        self.ok({"run_id": new_id, "parent_run_id": run_id})
