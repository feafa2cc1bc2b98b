"""A portal's configuration in Valkey or Redis: its owner leaves it there for the next one."""

from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

import orjson

from bitrix_pull.errors import LeaseLost, ResumeStoreFailed
from bitrix_pull.hub.cluster import Lease
from bitrix_pull.hub.fences import Seal
from bitrix_pull.hub.valkey.engine import Engine, Script
from bitrix_pull.portal.foreign_errors import described
from bitrix_pull.portal.models import PullConfig, read_config, write_config
from bitrix_pull.redaction import get_logger

_log: Final = get_logger("hub")

_BEQUEATH, _INHERIT = Script("bequeath"), Script("inherit")

_FENCED: Final = -1


class FencedConfigs:
    """A ``ConfigStore`` of one portal, for one owner of it.

    What is kept ends by the engine's clock, and nobody's but the portal's own time is written
    down: so the clocks of workers may differ.

    Args:
        engine: Where to keep it.
        at: Where the portal's state is, with the epoch of its owner.
        lease: Whose right it is.
        seal: Makes of it what is kept.
    """

    def __init__(self, engine: Engine, at: str, lease: Lease, seal: Seal) -> None:
        self._engine = engine
        self._keys = (at, f"{at.removesuffix(f'at:{lease.key}')}config:{lease.key}")
        self._lease = lease
        self._seal = seal

    async def load(self, whose: str) -> tuple[PullConfig, float] | None:
        """See ``ConfigStore.load``; what cannot be read, or decrypted, is as good as nothing.

        Raises:
            LeaseLost: The lease is over.
            EngineUnavailable: The engine does not answer.
        """
        self._lease.require()
        content, left_ms = await self._engine.run(_INHERIT, [self._keys[1]])
        if not content or left_ms <= 0:
            return None
        left_s = left_ms / 1000
        try:
            kept: dict[str, Any] = orjson.loads(self._seal.unseal(content))
            if kept["whose"] != whose:
                return None
            config = read_config(kept["config"])
            gone = timedelta(seconds=float(kept["good_for_s"]) - left_s)
            present = None if config.server_time is None else config.server_time + gone
        except Exception:
            # Of a cipher of the user's own too. Their texts may hold a secret.
            _log.warning("the configuration that is kept of %r cannot be read", self._lease.key)
            return None
        return replace(config, server_time=present), left_s

    async def save(self, whose: str, config: PullConfig, good_for_s: float) -> None:
        """See ``ConfigStore.save``.

        Raises:
            LeaseLost: The lease is over, or a later owner was here.
            EngineUnavailable: The engine does not answer.
            ResumeStoreFailed: It could not be encrypted.
        """
        self._lease.require()
        content = orjson.dumps({"whose": whose, "good_for_s": good_for_s, "config": write_config(config)})
        try:
            kept = self._seal.seal(content)
        except Exception as error:
            raise ResumeStoreFailed(f"the cipher raised {described(error)}") from None
        lasts_ms = max(round(good_for_s * 1000), 1)
        answer = await self._engine.run(_BEQUEATH, self._keys, self._lease.epoch, kept, lasts_ms)
        if answer == _FENCED:
            self._lease.end("fenced")
            raise LeaseLost(f"another worker has the portal {self._lease.key!r:.60} by now")
