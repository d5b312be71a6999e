# SPDX-License-Identifier: MIT
"""The same line as Python's logging writes it with json.dumps: prints `line MICROSECONDS`."""
import json
import logging
import os
import sys
import time

LINES = 30000
FIELDS = {
    "operation": "chat", "endpoint": "my-endpoint", "request_id": "0123456789abcdef", "input_length": 123,
    "duration_ms": 123.456, "ttft_ms": 23.4, "input_tokens": 100, "output_tokens": 200, "attempts": 1,
    "cache": "miss", "variant": "a", "status": 200, "served_model": "m-1", "streamed": True, "outcome": "success",
}

path = os.path.join(sys.argv[1], "python-log")
handler = logging.FileHandler(path)
handler.setFormatter(logging.Formatter("%(message)s"))
logger = logging.getLogger("bench")
logger.setLevel(logging.INFO)
logger.addHandler(handler)
logger.propagate = False
started = time.process_time()
for _ in range(LINES):
    logger.info(json.dumps({"event": "query_success", **FIELDS}))
print("line", (time.process_time() - started) / LINES * 1e6)
os.remove(path)
