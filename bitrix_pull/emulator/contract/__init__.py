"""What is known of a push server of version 4, run against any of them.

``python -m bitrix_pull.emulator.contract --sub URL --pub URL …`` prints where it differs.
"""

from bitrix_pull.emulator.contract.checks import CHECKS
from bitrix_pull.emulator.contract.server import Difference, Server, run_checks

__all__ = ["CHECKS", "Difference", "Server", "run_checks"]
