"""The ceiling: the smallest ASGI handler there can be, on the same uvicorn, answering as many bytes as ours.

It reads the body, looks at nothing in it and stores nothing. No service on this server can be faster.
"""

import argparse
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import uvicorn

Message = MutableMapping[str, Any]


def application(sizes: dict[str, int]) -> Callable[..., Awaitable[None]]:
    """A handler that answers each method with one constant body of the given size."""
    answers: dict[str, tuple[Message, Message]] = {}
    for method, size in sizes.items():
        body = b"x" * size
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % size)]
        answers[method] = (
            {"type": "http.response.start", "status": 200, "headers": headers},
            {"type": "http.response.body", "body": body},
        )

    async def app(
        scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        method = scope["method"]
        if method == "POST":
            while (await receive()).get("more_body", False):
                pass
        start, body = answers[method]
        await send(start)
        await send(body)

    return app


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--get", type=int, default=300, help="bytes of the answer to a GET")
    parser.add_argument("--post", type=int, default=300, help="bytes of the answer to a POST")
    arguments = parser.parse_args()
    uvicorn.run(
        application({"GET": arguments.get, "POST": arguments.post}),
        host="127.0.0.1",
        port=arguments.port,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
