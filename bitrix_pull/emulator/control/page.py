"""The page that says what this is, and how to drive it."""

from collections.abc import Iterable, Sequence
from html import escape

from bitrix_pull.emulator.control.operations import OPERATIONS
from bitrix_pull.emulator.orders import described
from bitrix_pull.emulator.server import Emulator

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>bitrix_pull emulator</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em }}
td, th {{ text-align: left; padding: .1em 1em .1em 0; vertical-align: top }}
code, pre {{ font-family: ui-monospace, monospace; font-size: 13px; overflow-wrap: anywhere }}
</style>
<h1>An emulated Bitrix24</h1>
<p>A portal and its push server, for tests. Nothing here is real, and nobody else's data is.
This port drives it: every operation takes and gives JSON, and <code>?portal=1</code> means the second
portal. The whole is described in <a href="/openapi.json">openapi.json</a>.</p>
<pre>curl {base}/events -d '{{"command": "order_update", "params": {{"id": 7}}}}'
curl {base}/connections/end -d '{{"how": "reset"}}'
curl {base}/journal?kind=rest,published</pre>
{portals}
<h2>Operations</h2>
<table>{operations}</table>
"""


def write_page(base: str, emulators: Sequence[Emulator]) -> str:
    """Return it as HTML."""
    portals = [
        f"<h2>Portal {number}</h2><table>{_rows(described(emulator).items())}</table>"
        for number, emulator in enumerate(emulators)
    ]
    operations = _rows((f"{item.verb} {item.path}", item.summary) for item in OPERATIONS)
    return _PAGE.format(base=escape(base), portals="".join(portals), operations=operations)


def _rows(pairs: Iterable[tuple[str, str]]) -> str:
    return "".join(
        f"<tr><th><code>{escape(name)}</code><td><code>{escape(value)}</code>" for name, value in pairs
    )
