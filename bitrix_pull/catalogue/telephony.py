"""Calls (module ``voximplant``): they reach who is called, or takes part."""

from typing import Any

from pydantic import Field

from bitrix_pull.catalogue.base import Flag, Map, Number, PortalModel, Text


class IncomingCall(PortalModel, module="voximplant", commands=("invite",)):
    """A call comes in. The push server keeps it for 30 s. Telephone numbers are not in the repr.

    Provisional, from the portal's code of 2025-06 to 2026-05.
    """

    call_id: Text = None
    caller_id: Text = Field(None, repr=False)
    line_number: Text = Field(None, repr=False)
    phone_number: Text = Field(None, repr=False)
    portal_call: Flag = None
    crm: Map[Any] = Field({}, validation_alias="CRM")
    crm_entity_type: Text = None
    crm_entity_id: Number = None
    log_token: Text = Field(None, repr=False)


class CallStarted(PortalModel, module="voximplant", commands=("start",)):
    """A call was taken up.

    Provisional, from the portal's code of 2025-06 to 2026-05.
    """

    call_id: Text = None


class CallTimedOut(PortalModel, module="voximplant", commands=("timeout",)):
    """Nobody has taken a call.

    Provisional, from the portal's code of 2025-06 to 2026-05.
    """

    call_id: Text = None


class CallAnswered(PortalModel, module="voximplant", commands=("answer_self",)):
    """The call was answered by this user, here or on another device.

    Provisional, from the portal's code of 2025-06 to 2026-05.
    """

    call_id: Text = None


class CallHeld(PortalModel, module="voximplant", commands=("hold",)):
    """A call is on hold.

    Provisional, from the portal's code of 2025-06 to 2026-05.
    """

    call_id: Text = None


class CallResumed(PortalModel, module="voximplant", commands=("unhold",)):
    """A call is on hold no longer.

    Provisional, from the portal's code of 2025-06 to 2026-05.
    """

    call_id: Text = None


class ExternalCallShown(PortalModel, module="voximplant", commands=("showExternalCall",)):
    """The card of an external call is to be shown. Telephone numbers are not in the repr.

    Provisional, from the portal's code of 2025-06 to 2026-05.
    """

    call_id: Text = None
    caller_id: Text = Field(None, repr=False)
    line_number: Text = Field(None, repr=False)
    phone_number: Text = Field(None, repr=False)
    portal_call: Flag = None
    crm: Map[Any] = Field({}, validation_alias="CRM")
    crm_entity_type: Text = None
    crm_entity_id: Number = None
    log_token: Text = Field(None, repr=False)
    to_user_id: Number = None
    from_user_id: Number = None


class ExternalCallHidden(PortalModel, module="voximplant", commands=("hideExternalCall",)):
    """The card of an external call is to be hidden.

    Provisional, from the portal's code of 2025-06 to 2026-05.
    """

    call_id: Text = None
    to_user_id: Number = None
    from_user_id: Number = None
