"""When a failed attempt is followed by another."""

from __future__ import annotations

from typing import Final

from taskhub.domain.result import Result
from taskhub.domain.task import Status, TaskSpec

DELAY_CAP_MS: Final = 3_600_000
LOSS_LIMIT: Final = 3


def retry_delay_ms(task: TaskSpec, attempt: int) -> int:
    """Return the pause after attempt `attempt`: 1x, 2x, 4x ... the delay, at most an hour."""
    factor = 1 << min(attempt - 1, 40) if task.retry_exp_backoff else 1
    return min(task.retry_delay_ms * factor, DELAY_CAP_MS)


def may_retry(task: TaskSpec, attempt: int, losses: int, result: Result) -> bool:
    """Say whether another attempt follows the one that ended with `result`.

    Failed and Timeout retry while `retry_count` lasts; Canceled never. A lost attempt is followed
    by another only if the task is idempotent, whatever `retry_count` says, until the run was lost
    with `LOSS_LIMIT` servers in a row (`losses`) without progress: then it is the likely cause.
    """
    if result.is_lost:
        return task.idempotent and losses < LOSS_LIMIT
    return attempt < task.max_attempts and result.status in {Status.FAILED, Status.TIMEOUT}
