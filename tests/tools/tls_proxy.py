#!/usr/bin/env python3
"""Speaks TLS on a port of 127.0.0.1 and passes the bytes on to another: tls_proxy.py PORT TARGET CERT KEY

It is for services that cannot speak TLS, when a test needs them behind TLS. The proxy ends when its standard input
ends, so that it never outlives the test that holds the other end.
"""

import asyncio
import os
import ssl
import sys

CHUNK_BYTES = 64 << 10


async def pump(reader, writer):
    try:
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    except (ConnectionError, ssl.SSLError):
        pass
    finally:
        writer.close()


async def main(port, target, cert, key):
    async def passed_on(reader, writer):
        try:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    await asyncio.start_server(passed_on, "127.0.0.1", port, ssl=context)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    # Connections that are still open end with the process.
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]))
