"""``python -m bitrix_pull`` is ``bitrix-pull``."""

from bitrix_pull.cli import main

main()
