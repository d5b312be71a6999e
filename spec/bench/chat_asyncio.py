# SPDX-License-Identifier: MIT
"""chat_client.lua with asyncio on uvloop: aiohttp or httpx, a task for each request under way.

chat_asyncio.py aiohttp|httpx URL CONCURRENCY SECONDS
"""

import asyncio
import sys
import time

import uvloop

from chat_python import Measure, chat, check

KIND, URL, CONCURRENCY, SECONDS = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])


def open_aiohttp():
    import aiohttp

    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONCURRENCY))

    async def send():
        async with session.post(URL, json=chat()) as response:
            return await response.json()

    return send, session.close


def open_httpx():
    import httpx

    limits = httpx.Limits(max_connections=CONCURRENCY, max_keepalive_connections=CONCURRENCY)
    client = httpx.AsyncClient(limits=limits, timeout=60, trust_env=False)

    async def send():
        return (await client.post(URL, json=chat())).json()

    return send, client.aclose


async def work(send, stop):
    count = 0
    while time.monotonic() < stop:
        check(await send())
        count += 1
    return count


async def run_for(send, seconds):
    stop = time.monotonic() + seconds
    return sum(await asyncio.gather(*(work(send, stop) for _ in range(CONCURRENCY))))


async def main():
    send, close = open_aiohttp() if KIND == "aiohttp" else open_httpx()
    await run_for(send, 0.2)
    with Measure() as measure:
        count = await run_for(send, SECONDS)
    await close()
    measure.print(count)


uvloop.install()
asyncio.run(main())
