# SPDX-License-Identifier: MIT
"""The JSON echo by FastAPI on uvicorn, for server.lua: python3 server_fastapi.py PORT"""
import sys
from typing import Any

import uvicorn
from fastapi import Body, FastAPI

app = FastAPI()


@app.post("/echo")
async def echo(value: Any = Body(...)) -> Any:
    return value


uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error", access_log=False)
