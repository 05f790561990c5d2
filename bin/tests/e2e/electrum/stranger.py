"""A WebSocket client of another family (aiohttp over OpenSSL).

stranger.py URL CERTIFICATE: says "connected", then sends each line of its input and prints
each message. CERTIFICATE is the only one that it trusts; "-" is for a URL without TLS.
"""

import asyncio
import ssl
import sys

import aiohttp


async def main(url, certificate):
    context = None
    if certificate != "-":
        context = ssl.create_default_context(cafile=certificate)
        # Whose certificate it is, is what is tested, not on which name it was made out.
        context.check_hostname = False
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(url, ssl=context, max_msg_size=0) as socket:
            print("connected", flush=True)

            async def say():
                loop = asyncio.get_running_loop()
                while line := await loop.run_in_executor(None, sys.stdin.readline):
                    await socket.send_str(line.rstrip("\n"))

            saying = asyncio.create_task(say())
            async for message in socket:
                print(message.data, flush=True)
            saying.cancel()


asyncio.run(main(*sys.argv[1:]))
