"""What portals send to their users, as models by meaning: ``im``, ``tasks``, ``telephony`` and others.

Import the portal's module that you want, and register for a model instead of a command::

    from bitrix_pull.catalogue import im

    @pull.on(im.NewMessage)
    async def hello(event: PullEvent[im.NewMessage]) -> None:
        print(event.params.message.text)

All of it is provisional. The vendor neither documents nor promises it; names and meanings have
changed within months. So no model ever refuses an event: what is not as expected is None or
empty, what is unknown is kept (``model_extra``), and ``event.raw`` is what came. In user mode
alone: an application never hears of these.
"""

from bitrix_pull.catalogue.base import PortalModel

__all__ = ["PortalModel"]
