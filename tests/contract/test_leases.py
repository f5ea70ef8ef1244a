"""The fake lease that other tests rely on keeps the contract of real ones."""

from __future__ import annotations

import pytest

from taskhub.testing.lease_contract import LeaseContract, Rival
from tests.leases import FakeLease, Leases


class InOneProcess:
    def __init__(self):
        self.leases = Leases()

    async def join(self):
        lease = FakeLease(self.leases)
        stores = self.leases.stores_of(lease)
        return Rival(lease=lease, runs=stores.runs, logs=stores.logs)

    async def lapse(self):
        self.leases.lapse()


class TestFakeLease(LeaseContract):
    @pytest.fixture
    def rivals(self):
        return InOneProcess()
