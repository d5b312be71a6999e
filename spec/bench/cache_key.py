# SPDX-License-Identifier: MIT
"""The key of the same chat as Python makes one, both steps in C: prints `key MICROSECONDS`."""
import hashlib
import json
import time

REQUEST = {
    "model": "my-served-model", "temperature": 0, "max_tokens": 256,
    "messages": [
        {"role": "system", "content": "You are a gate keeper who answers in one sentence."},
        {"role": "user", "content": "What is a sluice, and who opens it in the morning when the water is high? "
                                    "Who shuts it at night?"},
    ],
}
CALLS = 100000

started = time.process_time()
for _ in range(CALLS):
    hashlib.sha256(json.dumps(REQUEST, sort_keys=True).encode()).hexdigest()
print("key", (time.process_time() - started) / CALLS * 1e6)
