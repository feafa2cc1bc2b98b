"""A web page on loopback that shows what a client receives, and how it is doing."""

from bitrix_pull.inspector.server import Inspector

__all__ = ["Inspector"]
