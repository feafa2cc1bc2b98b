"""``bitrix-pull doctor``: why no events come, and what to do about it."""

import orjson
from rich.table import Table
from rich.text import Text

from bitrix_pull.cli.account import Account
from bitrix_pull.cli.credentials import credentials_of, options_of
from bitrix_pull.cli.output import people_console
from bitrix_pull.cli.streams import write_line
from bitrix_pull.client import PullClient
from bitrix_pull.doctor.findings import Diagnosis, Finding, Level
from bitrix_pull.exits import Exit, exit_code
from bitrix_pull.options import Transport
from bitrix_pull.portal.auth import Mode
from bitrix_pull.redaction import one_line

_STYLES: dict[Level, str] = {"ok": "green", "warn": "yellow", "fail": "bold red"}


async def doctor(
    account: Account, *, mode: Mode | None, transport: Transport, connector: str, publish: bool, as_json: bool
) -> Exit:
    """Print what a diagnosis finds, the cause first, and return the exit code that it calls for."""
    pull = PullClient(
        credentials_of(account),
        mode=mode,
        options=options_of(account, transport=transport, connector=connector),
    )
    try:
        diagnosis = await pull.diagnose(publish=publish)
    finally:
        await pull.close()
    if as_json:
        write_line(orjson.dumps(diagnosis.as_json()))
    else:
        _show(diagnosis)
    return _exit(diagnosis)


def _exit(diagnosis: Diagnosis) -> Exit:
    cause = diagnosis.cause
    if cause is None or cause.level == "warn":
        return Exit.DONE
    return Exit.FAILED if cause.error is None else exit_code(cause.error)


def _show(diagnosis: Diagnosis) -> None:
    console = people_console()
    cause = diagnosis.cause
    if cause is None:
        console.print(Text(f"All is well with {diagnosis.portal}.\n", "green"), soft_wrap=True)
    else:
        console.print(Text(one_line(str(cause)), _STYLES[cause.level]), soft_wrap=True)
        console.print()
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for finding in diagnosis.findings:
        table.add_row(Text(finding.level, _STYLES[finding.level]), finding.check, _told(finding))
    console.print(table)


def _told(finding: Finding) -> Text:
    took = "" if finding.took_s is None else f" ({finding.took_s * 1000:,.0f} ms)"
    advice = f". {finding.advice}" if finding.advice else ""
    return Text.assemble(one_line(finding.told), (took, "dim"), one_line(advice))
