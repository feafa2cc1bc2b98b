"""The control API: portals that are driven over HTTP, by tests in any language."""

from bitrix_pull.emulator.control.api import ControlApi

__all__ = ["ControlApi"]
