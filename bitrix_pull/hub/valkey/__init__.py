"""Workers on several machines over Valkey or Redis (6.2 or newer): ``pip install 'bitrix-pull[hub]'``."""

from bitrix_pull.hub.valkey.cluster import ClusterStatus, ValkeyCluster, WorkerStatus
from bitrix_pull.hub.valkey.resume import ValkeyResumeStore
from bitrix_pull.hub.valkey.stream import GroupLag, ValkeyStream

__all__ = ["ClusterStatus", "GroupLag", "ValkeyCluster", "ValkeyResumeStore", "ValkeyStream", "WorkerStatus"]
