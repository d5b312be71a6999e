# SPDX-License-Identifier: MIT
"""Measures asyncio's tasks, as task_probe.lua does ours: task_asyncio.py spawn|switch|waiting"""

import asyncio
import gc
import signal
import sys
import time

ROUNDS, SPAWNS = 60, 500
SWITCHES = 50000
WAITING = 20000


async def nop():
    pass


async def spawn():
    start = time.process_time()
    for _ in range(ROUNDS):
        await asyncio.gather(*[asyncio.create_task(nop()) for _ in range(SPAWNS)])
    return {"us": (time.process_time() - start) / (ROUNDS * SPAWNS) * 1e6}


async def alternate():
    for _ in range(SWITCHES // 2):
        await asyncio.sleep(0)


async def switch():
    start = time.process_time()
    await asyncio.gather(alternate(), alternate())
    return {"us": (time.process_time() - start) / SWITCHES * 1e6}


def resident():
    with open("/proc/self/smaps_rollup", encoding="ascii") as file:
        for line in file:
            if line.startswith("Rss:"):
                return int(line.split()[1]) * 1024
    return 0


async def waiting():
    gc.collect()
    before = resident()
    tasks = [asyncio.create_task(asyncio.sleep(1000)) for _ in range(WAITING)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    after = resident()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return {"rss": (after - before) / WAITING}


signal.signal(signal.SIGINT, signal.SIG_DFL)
PROBES = {"spawn": spawn, "switch": switch, "waiting": waiting}
for key, value in asyncio.run(PROBES[sys.argv[1]]()).items():
    print(key, value)
