# SPDX-License-Identifier: MIT
"""chat_client.lua with requests: a Session, a thread for each request under way.

chat_requests.py URL CONCURRENCY SECONDS
"""

import os
import resource
import signal
import sys
import threading
import time

import requests
from requests.adapters import HTTPAdapter

URL, CONCURRENCY, SECONDS = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])


SYSTEM = "You are a terse assistant that answers in one sentence of plain words."
QUESTION = (
    "What is a sluice, and why would somebody give that name to a program that sends"
    " requests to model endpoints?"
)


def chat():
    return {
        "model": "my-served-model-2",
        "messages": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": QUESTION},
        ],
        "temperature": 0.7,
        "max_tokens": 128,
        "stream": False,
    }


def work(session, stop, counts):
    count = 0
    while time.monotonic() < stop:
        answer = session.post(URL, json=chat()).json()
        assert answer["usage"]["total_tokens"] == 118
        count += 1
    counts.append(count)


def run_for(session, seconds):
    counts, stop = [], time.monotonic() + seconds
    threads = [threading.Thread(target=work, args=(session, stop, counts)) for _ in range(CONCURRENCY)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts)


def fail(failure):
    print(f"chat_requests.py: {failure.exc_value}", file=sys.stderr)
    os._exit(1)


def main():
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.excepthook = fail
    session = requests.Session()
    session.trust_env = False
    session.mount("http://", HTTPAdapter(pool_maxsize=CONCURRENCY))
    run_for(session, 0.2)
    wall, cpu = time.monotonic(), time.process_time()
    count = run_for(session, SECONDS)
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"rate {count / wall:.1f}\ncpu {cpu / count * 1e6:.3f}\nmb {most:.2f}")


main()
