# SPDX-License-Identifier: MIT
"""chat_client.lua with requests: a Session, a thread for each request under way.

chat_requests.py URL CONCURRENCY SECONDS
"""

import os
import signal
import sys
import threading
import time

import requests
from requests.adapters import HTTPAdapter

from chat_python import Measure, chat, check

URL, CONCURRENCY, SECONDS = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])


def work(session, stop, counts):
    count = 0
    while time.monotonic() < stop:
        check(session.post(URL, json=chat()).json())
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
    with Measure() as measure:
        count = run_for(session, SECONDS)
    measure.print(count)


main()
