"""Tasks (module ``tasks``): they reach who takes part in the task."""

from typing import Any

from pydantic import Field

from bitrix_pull.catalogue.base import Date, Items, Map, Number, PortalModel, Text


class TaskAdded(PortalModel, module="tasks", commands=("task_add",)):
    """A task was added.

    Provisional, from the portal's code of 2025-06 to 2026-05.
    """

    task_id: Number = None
    user_id: Number = None
    before: Map[Any] = {}
    after: Map[Any] = {}
    ts: Date = None
    event_guid: Text = Field(None, validation_alias="event_GUID")
    params: Map[Any] = {}


class TaskUpdated(PortalModel, module="tasks", commands=("task_update",)):
    """A task was changed: ``before`` and ``after`` hold the fields that were.

    Provisional, from the portal's code of 2025-06 to 2026-05.
    """

    task_id: Number = None
    user_id: Number = None
    before: Map[Any] = {}
    after: Map[Any] = {}
    ts: Date = None
    event_guid: Text = Field(None, validation_alias="event_GUID")
    params: Map[Any] = {}


class TaskRemoved(PortalModel, module="tasks", commands=("task_remove",)):
    """A task was removed.

    Provisional, from the portal's code of 2025-06 to 2026-05.
    """

    task_id: Number = None
    user_id: Number = None
    before: Map[Any] = {}
    after: Map[Any] = {}
    ts: Date = None
    event_guid: Text = Field(None, validation_alias="event_GUID")
    params: Map[Any] = {}


class CommentAdded(PortalModel, module="tasks", commands=("comment_add",)):
    """A comment was added; ``entity_xml_id`` is ``TASK_`` and the task's id.

    Provisional, from the portal's code of 2025-06 to 2026-05.
    """

    task_id: Number = None
    entity_xml_id: Text = None
    owner_id: Number = None
    message_id: Number = None
    group_id: Number = None
    participants: Items[Number] = []


class CommentDeleted(PortalModel, module="tasks", commands=("comment_delete",)):
    """A comment was deleted.

    Provisional, from the portal's code of 2025-06 to 2026-05.
    """

    task_id: Number = None
    entity_xml_id: Text = None
    owner_id: Number = None
    message_id: Number = None
    group_id: Number = None
    participants: Items[Number] = []


class TaskViewed(PortalModel, module="tasks", commands=("task_view",)):
    """A task was opened by a user.

    Provisional, from the portal's code of 2025-06 to 2026-05.
    """

    task_id: Number = None
    user_id: Number = None


class Counters(PortalModel, module="tasks", commands=("user_counter",)):
    """A user's counters. Those of groups are in ``model_extra``, by the group's id as text.

    Provisional, from the portal's code of 2025-06 to 2026-05.
    """

    user_id: Number = None
