from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import Any as _Any, ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SenderType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    UNKNOWN: _ClassVar[SenderType]
    CLIENT: _ClassVar[SenderType]
    BACKEND: _ClassVar[SenderType]
UNKNOWN: SenderType
CLIENT: SenderType
BACKEND: SenderType

class ResponseBatch(_message.Message):
    __slots__ = ("responses",)
    RESPONSES_FIELD_NUMBER: _ClassVar[int]
    responses: _containers.RepeatedCompositeFieldContainer[Response]
    def __init__(self, responses: _Optional[_Iterable[_Union[Response, _Mapping[str, _Any]]]] = ...) -> None: ...

class Response(_message.Message):
    __slots__ = ("outgoingMessages", "channelStats", "serverStats", "json")
    OUTGOINGMESSAGES_FIELD_NUMBER: _ClassVar[int]
    CHANNELSTATS_FIELD_NUMBER: _ClassVar[int]
    SERVERSTATS_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    outgoingMessages: OutgoingMessagesResponse
    channelStats: ChannelStatsResponse
    serverStats: JsonResponse
    json: bytes
    def __init__(self, outgoingMessages: _Optional[_Union[OutgoingMessagesResponse, _Mapping[str, _Any]]] = ..., channelStats: _Optional[_Union[ChannelStatsResponse, _Mapping[str, _Any]]] = ..., serverStats: _Optional[_Union[JsonResponse, _Mapping[str, _Any]]] = ..., json: _Optional[bytes] = ...) -> None: ...

class OutgoingMessagesResponse(_message.Message):
    __slots__ = ("messages",)
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedCompositeFieldContainer[OutgoingMessage]
    def __init__(self, messages: _Optional[_Iterable[_Union[OutgoingMessage, _Mapping[str, _Any]]]] = ...) -> None: ...

class OutgoingMessage(_message.Message):
    __slots__ = ("id", "body", "expiry", "created", "sender")
    ID_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    EXPIRY_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    SENDER_FIELD_NUMBER: _ClassVar[int]
    id: bytes
    body: bytes
    expiry: int
    created: int
    sender: Sender
    def __init__(self, id: _Optional[bytes] = ..., body: _Optional[bytes] = ..., expiry: _Optional[int] = ..., created: _Optional[int] = ..., sender: _Optional[_Union[Sender, _Mapping[str, _Any]]] = ...) -> None: ...

class ChannelStatsResponse(_message.Message):
    __slots__ = ("channels",)
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    channels: _containers.RepeatedCompositeFieldContainer[ChannelStats]
    def __init__(self, channels: _Optional[_Iterable[_Union[ChannelStats, _Mapping[str, _Any]]]] = ...) -> None: ...

class ChannelStats(_message.Message):
    __slots__ = ("id", "isPrivate", "isOnline")
    ID_FIELD_NUMBER: _ClassVar[int]
    ISPRIVATE_FIELD_NUMBER: _ClassVar[int]
    ISONLINE_FIELD_NUMBER: _ClassVar[int]
    id: bytes
    isPrivate: bool
    isOnline: bool
    def __init__(self, id: _Optional[bytes] = ..., isPrivate: bool = ..., isOnline: bool = ...) -> None: ...

class JsonResponse(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: str
    def __init__(self, json: _Optional[str] = ...) -> None: ...

class Received(_message.Message):
    __slots__ = ("responses",)
    RESPONSES_FIELD_NUMBER: _ClassVar[int]
    responses: ReceivedResponse
    def __init__(self, responses: _Optional[_Union[ReceivedResponse, _Mapping[str, _Any]]] = ...) -> None: ...

class ReceivedResponse(_message.Message):
    __slots__ = ("outgoingMessages", "channelStats")
    OUTGOINGMESSAGES_FIELD_NUMBER: _ClassVar[int]
    CHANNELSTATS_FIELD_NUMBER: _ClassVar[int]
    outgoingMessages: ReceivedMessages
    channelStats: ChannelStatsResponse
    def __init__(self, outgoingMessages: _Optional[_Union[ReceivedMessages, _Mapping[str, _Any]]] = ..., channelStats: _Optional[_Union[ChannelStatsResponse, _Mapping[str, _Any]]] = ...) -> None: ...

class ReceivedMessages(_message.Message):
    __slots__ = ("messages",)
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedCompositeFieldContainer[ReceivedMessage]
    def __init__(self, messages: _Optional[_Iterable[_Union[ReceivedMessage, _Mapping[str, _Any]]]] = ...) -> None: ...

class ReceivedMessage(_message.Message):
    __slots__ = ("id", "body", "expiry", "created", "sender")
    ID_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    EXPIRY_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    SENDER_FIELD_NUMBER: _ClassVar[int]
    id: bytes
    body: bytes
    expiry: int
    created: int
    sender: bytes
    def __init__(self, id: _Optional[bytes] = ..., body: _Optional[bytes] = ..., expiry: _Optional[int] = ..., created: _Optional[int] = ..., sender: _Optional[bytes] = ...) -> None: ...

class RequestBatch(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[Request]
    def __init__(self, requests: _Optional[_Iterable[_Union[Request, _Mapping[str, _Any]]]] = ...) -> None: ...

class Request(_message.Message):
    __slots__ = ("incomingMessages", "channelStats", "serverStats", "registration")
    INCOMINGMESSAGES_FIELD_NUMBER: _ClassVar[int]
    CHANNELSTATS_FIELD_NUMBER: _ClassVar[int]
    SERVERSTATS_FIELD_NUMBER: _ClassVar[int]
    REGISTRATION_FIELD_NUMBER: _ClassVar[int]
    incomingMessages: IncomingMessagesRequest
    channelStats: ChannelStatsRequest
    serverStats: ServerStatsRequest
    registration: RegisterRequest
    def __init__(self, incomingMessages: _Optional[_Union[IncomingMessagesRequest, _Mapping[str, _Any]]] = ..., channelStats: _Optional[_Union[ChannelStatsRequest, _Mapping[str, _Any]]] = ..., serverStats: _Optional[_Union[ServerStatsRequest, _Mapping[str, _Any]]] = ..., registration: _Optional[_Union[RegisterRequest, _Mapping[str, _Any]]] = ...) -> None: ...

class IncomingMessagesRequest(_message.Message):
    __slots__ = ("messages",)
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedCompositeFieldContainer[IncomingMessage]
    def __init__(self, messages: _Optional[_Iterable[_Union[IncomingMessage, _Mapping[str, _Any]]]] = ...) -> None: ...

class IncomingMessage(_message.Message):
    __slots__ = ("receivers", "sender", "body", "expiry", "type")
    RECEIVERS_FIELD_NUMBER: _ClassVar[int]
    SENDER_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    EXPIRY_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    receivers: _containers.RepeatedCompositeFieldContainer[Receiver]
    sender: Sender
    body: bytes
    expiry: int
    type: str
    def __init__(self, receivers: _Optional[_Iterable[_Union[Receiver, _Mapping[str, _Any]]]] = ..., sender: _Optional[_Union[Sender, _Mapping[str, _Any]]] = ..., body: _Optional[bytes] = ..., expiry: _Optional[int] = ..., type: _Optional[str] = ...) -> None: ...

class ChannelStatsRequest(_message.Message):
    __slots__ = ("channels",)
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    channels: _containers.RepeatedCompositeFieldContainer[ChannelId]
    def __init__(self, channels: _Optional[_Iterable[_Union[ChannelId, _Mapping[str, _Any]]]] = ...) -> None: ...

class ServerStatsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RegisterRequest(_message.Message):
    __slots__ = ("verificationQuery",)
    VERIFICATIONQUERY_FIELD_NUMBER: _ClassVar[int]
    verificationQuery: str
    def __init__(self, verificationQuery: _Optional[str] = ...) -> None: ...

class Sender(_message.Message):
    __slots__ = ("type", "id")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    type: SenderType
    id: bytes
    def __init__(self, type: _Optional[_Union[SenderType, str]] = ..., id: _Optional[bytes] = ...) -> None: ...

class Receiver(_message.Message):
    __slots__ = ("id", "isPrivate", "signature")
    ID_FIELD_NUMBER: _ClassVar[int]
    ISPRIVATE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    id: bytes
    isPrivate: bool
    signature: bytes
    def __init__(self, id: _Optional[bytes] = ..., isPrivate: bool = ..., signature: _Optional[bytes] = ...) -> None: ...

class ChannelId(_message.Message):
    __slots__ = ("id", "isPrivate", "signature")
    ID_FIELD_NUMBER: _ClassVar[int]
    ISPRIVATE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    id: bytes
    isPrivate: bool
    signature: bytes
    def __init__(self, id: _Optional[bytes] = ..., isPrivate: bool = ..., signature: _Optional[bytes] = ...) -> None: ...
