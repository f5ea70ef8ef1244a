from __future__ import annotations

import logging
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


@pytest.fixture(autouse=True)
def logging_as_before():
    """Commands configure logging to a stderr that ends with the test."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
