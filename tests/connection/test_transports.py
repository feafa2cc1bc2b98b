"""WebSocket where it works, long polling where it is blocked, and back (protocol §8)."""

import asyncio

import pytest

from bitrix_pull import State
from bitrix_pull.errors import InvalidConfig
from tests import virtual_time
from tests.connection.listening import Listener, emulator, running
