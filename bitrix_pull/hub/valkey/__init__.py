"""Workers on several machines over Valkey or Redis (6.2 or newer): ``pip install 'bitrix-pull[hub]'``."""

from bitrix_pull.hub.valkey.cluster import ClusterStatus, ValkeyCluster, WorkerStatus

__all__ = ["ClusterStatus", "ValkeyCluster", "WorkerStatus"]
