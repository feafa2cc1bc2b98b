"""Runs the contract suite against a push server, and prints where it differs."""

import argparse
import asyncio
import ipaddress
import sys
from urllib.parse import urlsplit

import aiohttp

from bitrix_pull.emulator.channels import Signer
from bitrix_pull.emulator.contract.checks import CHECKS
from bitrix_pull.emulator.contract.server import Server, run_checks


def main() -> int:
    """Run it. Exit code: 0 no difference, 1 some, 2 wrong options."""
    parser = argparse.ArgumentParser(
        prog="python -m bitrix_pull.emulator.contract",
        description="Compare a push server of version 4 with what is known of them. It gets messages "
        "on channels with random names, and some hundred requests that it should refuse.",
    )
    parser.add_argument("--sub", required=True, metavar="URL", help="where clients poll")
    parser.add_argument("--subws", metavar="URL", help="where they subscribe by WebSocket; default: --sub")
    parser.add_argument("--pub", required=True, metavar="URL", help="where the portal publishes")
    parser.add_argument("--rest", default="", metavar="URL", help="where clients publish")
    parser.add_argument("--stat", default="", metavar="URL", help="its statistics")
    parser.add_argument("--key", default="", metavar="KEY", help="its security key; default: it has none")
    parser.add_argument(
        "--slow", action="store_true", help="also what takes a minute, or hundreds of connections"
    )
    parser.add_argument("--anywhere", action="store_true", help="also a server that is not on this machine")
    parser.add_argument(
        "--settle", type=float, default=0.3, metavar="S", help="how long who connects needs to be there (0.3)"
    )
    options = parser.parse_args()
    urls: list[str] = [options.sub, options.subws or options.sub, options.pub, options.rest, options.stat]
    for url in filter(None, urls):
        if not options.anywhere and not _is_here(urlsplit(url).hostname or ""):
            parser.error(
                f"{urlsplit(url).hostname} is not this machine: say --anywhere if it is a server of yours"
            )
    differences = asyncio.run(_run(urls, options.key, options.settle, slow=options.slow))
    return 1 if differences else 0


async def _run(urls: list[str], key: str, settle_s: float, *, slow: bool) -> int:
    sub, subws, pub, rest, stat = urls
    websocket = "ws" + subws.removeprefix("http") if subws.startswith("http") else subws
    counts = {"same": 0, "differs": 0, "left out": 0}
    async with aiohttp.ClientSession() as session:
        server = Server(sub, websocket, pub, rest, stat, Signer(key), bool(key), session, settle_s)
        async for finding in run_checks(server, CHECKS, slow=slow):
            word = {None: "left out", "": "same"}.get(finding.difference, "differs")
            counts[word] += 1
            _say(f"{word:<9} {finding.name}")
            if word == "differs":
                _say(f"          {finding.difference}")
    _say(", ".join(f"{count} {word}" for word, count in counts.items()))
    return counts["differs"]


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
