"""Imported by the fork server alone: what each of its processes would do anew."""

from bitrix_pull import AccessToken, PullClient

# It reads the system's certificates, which takes longer than all else that a client does at its start.
PullClient(AccessToken("acme.bitrix24.com", "nobodys-token"))
