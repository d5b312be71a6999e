# SPDX-License-Identifier: MIT
"""What the Python clients of the bench share: the chat of chat_body.lua, and the three figures."""

import resource
import time

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


def check(answer):
    assert answer["usage"]["total_tokens"] == 118


class Measure:
    """Around what is measured; print(count) afterwards."""

    def __enter__(self):
        self.wall, self.cpu = time.monotonic(), time.process_time()
        return self

    def __exit__(self, *_):
        self.wall, self.cpu = time.monotonic() - self.wall, time.process_time() - self.cpu

    def print(self, count):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"rate {count / self.wall:.1f}\ncpu {self.cpu / count * 1e6:.3f}\nmb {most:.2f}")
