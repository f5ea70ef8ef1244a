from __future__ import annotations

import threading

import pytest
from motor.frameworks.asyncio import _EXECUTOR as MOTOR_THREADS


@pytest.fixture(scope="session", autouse=True)
def motor_threads():
    """Start motor's threads, which live as long as the process, before leaks are counted."""
    barrier = threading.Barrier(MOTOR_THREADS._max_workers + 1)
    for _ in range(MOTOR_THREADS._max_workers):
        MOTOR_THREADS.submit(barrier.wait)
    barrier.wait()
