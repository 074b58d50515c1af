#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A websocket server that says back what it hears, and its client. The client ends with 0 if each of
its messages came back.

usage: websocket-echo.py PORT
       websocket-echo.py URL CA COUNT
"""

import asyncio
import ssl
import sys

import websockets


async def echo(socket):
    async for message in socket:
        await socket.send(message)


async def serve(port):
    async with websockets.serve(echo, "127.0.0.1", port):
        print("ready", flush=True)
        await asyncio.Future()


async def talk(url, authority, count):
    context = ssl.create_default_context(cafile=authority)
    async with websockets.connect(url, ssl=context, open_timeout=20) as socket:
        for n in range(count):
            await socket.send(f"message {n}")
            if await asyncio.wait_for(socket.recv(), 20) != f"message {n}":
                return 1
    print(count, "messages")
    return 0


if __name__ == "__main__":
    if len(sys.argv) == 2:
        asyncio.run(serve(int(sys.argv[1])))
    sys.exit(asyncio.run(talk(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
