"""Workers on several machines over Valkey or Redis (6.2 or newer): ``pip install 'bitrix-pull[hub]'``.

       machine 1: Hub                      Valkey                     machine 2: Hub
    +----------------------+   +----------------------------+   +----------------------+
    | acme   client -> +   |   | leases: acme 1, beta 2, .. |   |   + <- client   beta |
    | gamma  client -> +   |-->| epoch of each: the fence   |<--|   + <- client  delta |
    | ..               +   |   | tokens, resume points      |   |   +               .. |
    +----------------------+   | log {bitrix-pull:0}:events |   +----------------------+
                               +------+--------------^------+
             your services, in any    v              |    ask the owner of a portal
             language: consumer groups               |    to publish, and are answered

What is promised:

- One owner a portal: another one within 10 s when that dies or is cut off, at once when it stops: a
  stopping worker drains first. Nobody's clock matters but the engine's, and each worker's own for how
  long it waits. Where the workers share tokens too, the next owner begins with the configuration that
  the one before has left, encrypted as the tokens are, and asks the portal for none.
- The log has each event once, in the order of its portal, whoever was killed: that the writer is still
  the owner, that the event is new, the entry and the resume point are one step. A worker that wakes up
  late writes nothing. Handlers get each event at least once.
- An engine that has lost its last second takes log and resume points back together; the portal sends
  the rest again.
- A slow consumer group is told of (``on_behind``, ``lag()``) before the log lets go of what it has not read.
- What other services ask to be published is published once at most, as long as the engine keeps what it
  has confirmed; see ``bitrix_pull.hub.valkey.requests``.
"""

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
