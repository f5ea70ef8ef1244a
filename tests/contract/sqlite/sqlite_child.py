"""Run as a program: commits to the store in argv[1] until it is killed; prints what is stored."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from taskhub.adapters.sqlite import open_sqlite
from taskhub.ports.store import Batch
from taskhub.testing.store_samples import chunk, event, new_run, task_update


async def main(directory: Path) -> None:
    async with open_sqlite(directory) as stores:
        number = 0
        while True:
            number += 1
            batch = new_run(number, 50)
            batch.events += [event(number, seq) for seq in range(2, 401)]
            await stores.runs.commit(batch)
            tasks = [task_update(number, index) for index in range(50)]
            await stores.runs.commit(Batch(tasks=tasks, events=[event(number, 401)]))
            await stores.logs.append(
                [chunk(2 * number + i, number, ["x" * 5000], task=f"t{i}") for i in range(2)]
            )
            print(number, flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
