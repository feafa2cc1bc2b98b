"""The checks, in the order in which one rests on the other."""

from collections.abc import AsyncGenerator

from bitrix_pull.doctor.access import administrator, credentials, mode, portal
from bitrix_pull.doctor.configuration import clock, configuration
from bitrix_pull.doctor.findings import Diagnosis, Finding
from bitrix_pull.doctor.lines import lines
from bitrix_pull.doctor.patient import Patient
from bitrix_pull.doctor.queue import limits, portal_events
from bitrix_pull.doctor.trips import Trips, offered


async def examine(patient: Patient, *, publish: bool) -> Diagnosis:
    """Make the checks, and return what they found.

    Args:
        patient: What is examined.
        publish: Whether to publish events to oneself, which handlers for all commands get too.
    """
    return Diagnosis(patient.portal, [finding async for finding in _findings(patient, publish)])


async def _findings(patient: Patient, publish: bool) -> AsyncGenerator[Finding]:
    async for finding in portal(patient):
        yield finding
        if finding.level == "fail":
            return
    for check in (credentials, administrator, mode):
        yield (finding := await check(patient))
        if finding.level == "fail":
            return
    yield await configuration(patient)
    yield await clock(patient)
    config = patient.config
    if config is None:
        return
    found = await lines(patient, config)
    for finding in found.findings:
        yield finding
    yield offered(config, patient)
    if publish and found.is_one_open:
        trips = Trips(patient)
        for finding in await trips.each_route():
            yield finding
        yield await trips.history()
    yield await portal_events(patient)
    yield await limits(patient)
