"""The push server over HTTP: publishing and statistics (protocol §7 and §9)."""

import re

import orjson
from aiohttp import web

from bitrix_pull.emulator.answers import answer
from bitrix_pull.emulator.channels import Refused
from bitrix_pull.emulator.faults import Line, PublishFault
from bitrix_pull.emulator.publications import read_trusted, read_untrusted
from bitrix_pull.emulator.push_server import CLIENT_PUBLISH_PATH, PUBLISH_PATH, STAT_PATH, PushServer
from bitrix_pull.events import BACKEND_SENDER
from bitrix_pull.wire.close_codes import ServerClose

_EXPIRY = re.compile(r"[0-9]{1,9}")


class PublishApi:
    """Serves the publish endpoints of one push server. That of clients came with version 4."""

    def __init__(self, push: PushServer) -> None:
        self._push = push

    def add_routes(self, app: web.Application) -> None:
        """Serve their paths in an application."""
        app.router.add_post(PUBLISH_PATH, self._publish)
        app.router.add_get(PUBLISH_PATH, self._online_channels)
        if self._push.version >= 4:
            app.router.add_post(CLIENT_PUBLISH_PATH, self._publish_as_client)
        app.router.add_get(STAT_PATH, self._stat)

    async def _publish_as_client(self, request: web.Request) -> web.StreamResponse:
        push = self._push
        push.counters.requests += 1
        body = await request.read()
        fault = push.faults.next_publishing()
        if fault is not None and not fault.applied:
            return _spoilt_answer(fault, request)
        if len(body) > push.limits.request_bytes:
            return answer(status=413)
        try:
            push.check_client_id(request.query.get("clientId"))
            publisher = push.signer.publisher(request.query.get("CHANNEL_ID", ""))
            answered = push.serve(read_untrusted(body, push.limits, publisher, push.signer))
        except Refused as refusal:
            push.refuse("publish", refusal)
            return answer(str(refusal), status=400)
        return _answer_bytes(answered) if fault is None else _spoilt_answer(fault, request)

    async def _publish(self, request: web.Request) -> web.StreamResponse:
        push = self._push
        push.counters.requests += 1
        body = await request.read()
        if len(body) > push.limits.request_bytes:
            return answer(status=413)
        answered = b""
        try:
            push.check_client_id(request.query.get("clientId"))
            if request.query.get("binaryMode") == "true":
                answered = push.serve(read_trusted(body, push.limits))
            else:
                channels = push.signer.read_all(request.query.get("CHANNEL_ID", ""), trusted=True)
                expiry = _EXPIRY.match(request.headers.get("Message-Expiry", ""))
                expiry_s = int(expiry[0]) if expiry else 0
                push.send([channel.id for channel in channels], body, expiry_s, BACKEND_SENDER)
        except Refused as refusal:
            push.refuse("publish", refusal)
            return answer(str(refusal), status=400)
        return _answer_bytes(answered)

    async def _online_channels(self, request: web.Request) -> web.StreamResponse:
        push = self._push
        try:
            push.check_client_id(request.query.get("clientId"))
            channel_id = request.query.get("CHANNEL_ID", "")
            if not channel_id:
                raise Refused(ServerClose.NO_RECEIVERS)
            channels = push.signer.read_all(channel_id, trusted=True)
        except Refused as refusal:
            return answer(str(refusal), status=400)
        online = [channel.id.hex() for channel in channels if push.is_online(channel.id)]
        return answer(orjson.dumps({"infos": [{"channel": channel, "subscribers": 1} for channel in online]}))

    async def _stat(self, request: web.Request) -> web.StreamResponse:
        return answer(self._push.stats())


def _spoilt_answer(fault: PublishFault, request: web.Request) -> web.Response:
    if fault.refusal is not None:
        return answer(str(Refused(fault.refusal)), status=400)
    if fault.cut:
        assert isinstance(request.transport, Line)
        request.transport.end("reset")
    headers = {} if fault.retry_after_s is None else {"Retry-After": str(fault.retry_after_s)}
    return answer(status=fault.status or 502, headers=headers)


def _answer_bytes(body: bytes) -> web.Response:
    return answer(body, content_type="application/octet-stream" if body else "text/plain")
