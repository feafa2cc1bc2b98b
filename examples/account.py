"""The account of the services among the examples, from the environment.

BITRIX_PULL_PORTAL is the address of your portal, BITRIX_PULL_TOKEN an access token of an
installed application with the scope "pull". Without an account, `bitrix-pull emulator` in
another terminal prints both.
"""

import os
import sys

from bitrix_pull import AccessToken


def account() -> AccessToken:
    """Return the credentials, or end the program with a word."""
    portal, token = os.environ.get("BITRIX_PULL_PORTAL"), os.environ.get("BITRIX_PULL_TOKEN")
    if not (portal and token):
        sys.exit(
            "Set BITRIX_PULL_PORTAL and BITRIX_PULL_TOKEN: yours, or what `bitrix-pull emulator` prints."
        )
    return AccessToken(portal, token)
