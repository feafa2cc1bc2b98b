"""A Bitrix24 portal and a push server on loopback: for tests, for demos, for a first look.

What it does not model stands in ``README.md`` beside this file.
"""

from bitrix_pull.emulator.channels import Owner
from bitrix_pull.emulator.cloud import CloudPortal, EmulatedCloud
from bitrix_pull.emulator.portal import Portal
from bitrix_pull.emulator.push_server import PushServer
from bitrix_pull.emulator.server import Emulator

__all__ = ["CloudPortal", "EmulatedCloud", "Emulator", "Owner", "Portal", "PushServer"]
