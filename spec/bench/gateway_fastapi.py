# SPDX-License-Identifier: MIT
"""A gateway by FastAPI and httpx, for gateway.lua: python3 gateway_fastapi.py PORT UPSTREAM"""
import json
import sys

import httpx
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse

app = FastAPI()
limits = httpx.Limits(max_connections=None, max_keepalive_connections=1000)
client = httpx.AsyncClient(base_url=sys.argv[2], timeout=300, limits=limits)


@app.post("/v1/chat/completions")
async def chat(request: Request) -> Response:
    body = await request.json()
    headers = {"content-type": "application/json", "authorization": "Bearer any"}
    upstream = client.build_request("POST", "/chat/completions", content=json.dumps(body), headers=headers)
    if body.get("stream"):
        answer = await client.send(upstream, stream=True)
        return StreamingResponse(answer.aiter_raw(), status_code=answer.status_code, media_type="text/event-stream")
    answer = await client.send(upstream)
    return Response(answer.content, status_code=answer.status_code, media_type="application/json")


uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error", access_log=False)
