"""CRM (module ``crm``): only while a page with a watch is kept alive (``pull.extend_watch``).

Who wants to know what changes in CRM takes the portal's own events instead.
"""

from typing import Any

from bitrix_pull.catalogue.base import Map, PortalModel, Text, Tolerant


class Item(Tolerant):
    """A card of a kanban or a list."""

    id: Text = None
    data: Map[Any] = {}


class KanbanUpdated(PortalModel, module="crm", commands=("CRM_KANBANUPDATED_*",)):
    """A card of a kanban was changed; ``event_name`` is ITEMADDED, ITEMUPDATED or ITEMDELETED.

    Provisional, from the portal's code of 2025-06 to 2026-05.
    """

    event_name: Text = None
    item: Item = Item()
    event_id: Text = None


class ItemUpdated(PortalModel, module="crm", commands=("ITEMUPDATED_*",)):
    """An item that a page shows was changed; by default whoever changed it does not hear of it.

    Provisional, from the portal's code of 2025-06 to 2026-05.
    """

    event_name: Text = None
    item: Item = Item()
    event_id: Text = None


class TimelineChanged(PortalModel, module="crm", commands=("timeline_item_action",)):
    """An entry of a timeline was added, changed or removed.

    Provisional, from the portal's code of 2025-06 to 2026-05.
    """

    tag: Text = None
    action: Text = None
    id: Text = None
    item: Map[Any] = {}
    stream: Text = None
