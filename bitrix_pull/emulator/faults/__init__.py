"""How an emulator can be told to misbehave. Everything may be changed while it runs."""

from bitrix_pull.emulator.faults.connection import ConnectionFaults, End, seeded
from bitrix_pull.emulator.faults.line import Line, LineProtocol
from bitrix_pull.emulator.faults.portal import PortalFaults, RestFailure
from bitrix_pull.emulator.faults.publishing import PublishFault

__all__ = [
    "ConnectionFaults",
    "End",
    "Line",
    "LineProtocol",
    "PortalFaults",
    "PublishFault",
    "RestFailure",
    "seeded",
]
