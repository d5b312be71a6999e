# SPDX-License-Identifier: MIT
"""The batch as one writes it in Python: every row a task, a semaphore, all results gathered.

batch_python.py requests|httpx URL INPUT OUTPUT CONCURRENCY
"""

import asyncio
import json
import sys

from chat_python import Measure, check

KIND, URL, INPUT, OUTPUT, CONCURRENCY = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5])


def open_requests():
    import concurrent.futures

    import requests
    from requests.adapters import HTTPAdapter

    session = requests.Session()
    session.trust_env = False
    session.mount("http://", HTTPAdapter(pool_maxsize=CONCURRENCY))
    asyncio.get_running_loop().set_default_executor(concurrent.futures.ThreadPoolExecutor(CONCURRENCY))

    async def send(request):
        return await asyncio.to_thread(lambda: session.post(URL, json=request).json())

    return send


def open_httpx():
    import httpx

    limits = httpx.Limits(max_connections=CONCURRENCY, max_keepalive_connections=CONCURRENCY)
    client = httpx.AsyncClient(limits=limits, timeout=60, trust_env=False)

    async def send(request):
        return (await client.post(URL, json=request)).json()

    return send


async def main():
    with Measure() as measure:
        send = open_requests() if KIND == "requests" else open_httpx()
        semaphore = asyncio.Semaphore(CONCURRENCY)

        async def one(row, line):
            async with semaphore:
                answer = await send(json.loads(line))
                check(answer)
                return {"row": row, "id": None, "response": answer}

        with open(INPUT) as lines:
            tasks = [one(row, line) for row, line in enumerate(lines, 1)]
        results = await asyncio.gather(*tasks)
        with open(OUTPUT, "w") as output:
            for result in results:
                output.write(json.dumps(result) + "\n")
    measure.print(len(results))


asyncio.run(main())
