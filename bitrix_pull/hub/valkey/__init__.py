"""Workers on several machines over Valkey or Redis (6.2 or newer): ``pip install 'bitrix-pull[hub]'``."""

from bitrix_pull.hub.ciphers import Cipher, FernetCipher
from bitrix_pull.hub.valkey.cluster import ClusterStatus, ValkeyCluster, WorkerStatus
from bitrix_pull.hub.valkey.engine import Engine
from bitrix_pull.hub.valkey.portals import ValkeyPortals
from bitrix_pull.hub.valkey.publisher import ValkeyPublisher
from bitrix_pull.hub.valkey.requests import PublishAnswer
from bitrix_pull.hub.valkey.resume import ValkeyResumeStore
from bitrix_pull.hub.valkey.stream import GroupLag, ValkeyStream
from bitrix_pull.hub.valkey.tokens import ValkeyTokenStore

__all__ = [
    "Cipher",
    "ClusterStatus",
    "Engine",
    "FernetCipher",
    "GroupLag",
    "PublishAnswer",
    "ValkeyCluster",
    "ValkeyPortals",
    "ValkeyPublisher",
    "ValkeyResumeStore",
    "ValkeyStream",
    "ValkeyTokenStore",
    "WorkerStatus",
]
