"""What every executor must do, as a suite to subclass, and a context to run attempts with."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from taskhub.domain.log import Level, Stream
from taskhub.domain.result import Result
from taskhub.domain.task import JSON, Status, TaskSpec
from taskhub.ports.executor import Context, Executor

_numbers = itertools.count(1)


async def eventually(
    condition: Callable[[], object], what: str = "condition", within_s: float = 15.0
) -> None:
    """Return when the condition is true; fail the test if it does not become so in time."""
    deadline = asyncio.get_running_loop().time() + within_s
    while not condition():
        if asyncio.get_running_loop().time() > deadline:
            pytest.fail(f"not within {within_s:g} s: {what}")
        await asyncio.sleep(0.005)


class RecordingContext:
    """Implements `Context`; keeps what it is given.

    With `room`, `drain` waits while more than so many bytes were written and not yet `take`n.
    """

    def __init__(self, task: TaskSpec, *, room: int | None = None) -> None:
        number = next(_numbers)
        self.run_id = f"1893456000000_{number:06d}"
        self.task = task
        self.attempt = 1
        self.attempt_key = f"{self.run_id}_0_1"
        self.deadline_ms: int | None = None
        self.written: list[tuple[Stream, bytes]] = []
        self.logged: list[tuple[Level, str]] = []
        self.waiting = 0
        self.peak = 0
        self._room = room
        self._taken = asyncio.Event()

    def write(self, stream: Stream, data: bytes) -> None:
        self.written.append((stream, data))
        self.waiting += len(data)
        self.peak = max(self.peak, self.waiting)

    def log(
        self,
        message: str,
        level: Level = Level.INFO,
        fields: Mapping[str, JSON] | None = None,  # noqa: ARG002  # the port's
    ) -> None:
        self.logged.append((level, message))

    async def drain(self) -> None:
        while self._room is not None and self.waiting > self._room:
            self._taken.clear()
            await self._taken.wait()

    def take(self) -> list[tuple[Stream, bytes]]:
        """Take what was written since the last call, which makes room."""
        taken, self.written = self.written, []
        self.waiting = 0
        self._taken.set()
        return taken

    def text(self, stream: Stream = Stream.STDOUT) -> str:
        """Return what was written to a stream."""
        return b"".join(data for to, data in self.written if to == stream).decode()

    @property
    def has_begun(self) -> bool:
        """Whether the attempt has shown a sign of life."""
        return bool(self.written or self.logged)


class BrokenContext(RecordingContext):
    """Refuses everything."""

    def write(self, stream: Stream, data: bytes) -> None:
        raise OSError(f"no {stream.name} of {len(data)} bytes, please")

    def log(
        self, message: str, level: Level = Level.INFO, fields: Mapping[str, JSON] | None = None
    ) -> None:
        raise OSError(f"no {level.name} {message!r} {fields}, please")


class ExecutorContract:
    """Subclass it as `Test...`, give it the fixtures that fail here, and override `traces`."""

    stop_s = 10.0
    """How soon a cancelled attempt must be over."""

    @pytest.fixture
    def executor(self) -> Executor:
        """Return (or be async and yield) the executor, started."""
        raise NotImplementedError

    @pytest.fixture
    def succeeding(self) -> TaskSpec:
        """Return a task that succeeds."""
        raise NotImplementedError

    @pytest.fixture
    def failing(self) -> TaskSpec:
        """Return a task that fails."""
        raise NotImplementedError

    @pytest.fixture
    def long_running(self) -> TaskSpec:
        """Return a task that logs or prints something and then runs for an hour."""
        raise NotImplementedError

    @pytest.fixture
    def flooding(self) -> TaskSpec | None:
        """Return a task that prints 8 MiB or more, if there is such a thing."""
        return None

    def traces(self, context: RecordingContext) -> Iterable[str]:  # noqa: ARG002  # overridden
        """Return what is still there of an attempt that was stopped: processes, connections."""
        return ()

    async def test_parameters_is_a_json_schema_that_the_examples_meet(
        self, executor: Executor, succeeding: TaskSpec, failing: TaskSpec, long_running: TaskSpec
    ) -> None:
        """A DAG with these tasks is accepted."""
        Draft202012Validator.check_schema(executor.parameters)
        validator = Draft202012Validator(executor.parameters)
        for task in (succeeding, failing, long_running):
            assert not list(validator.iter_errors(dict(task.exec_params)))
            assert not list(executor.check(task))

    async def test_success(self, executor: Executor, succeeding: TaskSpec) -> None:
        """A task that succeeds says so."""
        result = await executor.execute(RecordingContext(succeeding))
        assert (result.status, result.exit_code) == (Status.SUCCESS, 0)

    async def test_failure_has_a_reason(self, executor: Executor, failing: TaskSpec) -> None:
        """A task that fails says why, and no traceback."""
        result = await executor.execute(RecordingContext(failing))
        assert result.status == Status.FAILED
        assert result.exit_code != 0
        assert result.message
        assert "Traceback" not in result.message

    async def test_cancel_ends_the_attempt_and_its_work(
        self, executor: Executor, long_running: TaskSpec
    ) -> None:
        """A cancelled attempt is over soon, and so is all it started."""
        context = RecordingContext(long_running)
        work = asyncio.create_task(_execute(executor, context))
        await eventually(lambda: context.has_begun or work.done(), "the attempt begins")
        assert not work.done(), work
        work.cancel()
        done, _ = await asyncio.wait({work}, timeout=self.stop_s)
        assert done, "still running after a cancel"
        assert work.cancelled() or work.result().status != Status.SUCCESS
        assert not list(self.traces(context))

    async def test_cancel_before_the_first_step(
        self, executor: Executor, long_running: TaskSpec
    ) -> None:
        """An attempt that is cancelled in the turn it was started in leaves nothing behind."""
        context = RecordingContext(long_running)
        work = asyncio.create_task(_execute(executor, context))
        await asyncio.sleep(0)
        work.cancel()
        done, _ = await asyncio.wait({work}, timeout=self.stop_s)
        assert done, "still running after a cancel"
        assert not list(self.traces(context))

    async def test_attempts_run_side_by_side(
        self, executor: Executor, succeeding: TaskSpec, failing: TaskSpec, long_running: TaskSpec
    ) -> None:
        """None waits for another, fails for another, or ends when another is cancelled."""
        long = RecordingContext(long_running)
        work = asyncio.create_task(_execute(executor, long))
        others = [RecordingContext(task) for task in (succeeding, failing) * 10]
        results = await asyncio.wait_for(
            asyncio.gather(*(executor.execute(context) for context in others)), self.stop_s
        )
        statuses = [result.status for result in results]
        assert statuses == [Status.SUCCESS, Status.FAILED] * 10
        assert not work.done()
        work.cancel()
        await asyncio.wait({work}, timeout=self.stop_s)
        assert work.done()

    async def test_a_broken_context_harms_its_own_attempt_only(
        self, executor: Executor, long_running: TaskSpec, succeeding: TaskSpec
    ) -> None:
        """An attempt whose output is refused ends, and the executor goes on."""
        broken = BrokenContext(long_running)
        work = asyncio.create_task(_execute(executor, broken))
        done, _ = await asyncio.wait({work}, timeout=self.stop_s)
        assert done
        assert isinstance(work.exception(), OSError) or work.result().status == Status.FAILED
        assert not list(self.traces(broken))
        result = await executor.execute(RecordingContext(succeeding))
        assert result.status == Status.SUCCESS

    async def test_output_waits_for_room(
        self, executor: Executor, flooding: TaskSpec | None
    ) -> None:
        """A context without room is not written to much beyond; nothing is lost by waiting."""
        if flooding is None:
            pytest.skip("this executor has no output to speak of")
        context = RecordingContext(flooding, room=1 << 20)
        work = asyncio.create_task(_execute(executor, context))
        size = 0
        while not work.done():
            await eventually(lambda: context.waiting > 1 << 20 or work.done(), "more output")
            size += sum(len(data) for _, data in context.take())
        assert work.result().status == Status.SUCCESS
        assert size >= 8 << 20
        assert context.peak <= 2 << 20


async def _execute(executor: Executor, context: Context) -> Result:
    return await executor.execute(context)


def task_of(exec_type: str, command: str, **fields: Any) -> TaskSpec:  # noqa: ANN401  # TaskSpec's
    """Return a task with an id nobody cares about."""
    return TaskSpec(id="t", name="t", exec_type=exec_type, exec_command=command, **fields)
