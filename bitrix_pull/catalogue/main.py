"""The portal itself (module ``main``)."""

from bitrix_pull.catalogue.base import PortalModel


class Counters(PortalModel, module="main", commands=("user_counter",)):
    """A user's counters: ``model_extra`` maps the id of a site to counters by their codes.

    Provisional, from the portal's code of 2025-06 to 2026-05.
    """
