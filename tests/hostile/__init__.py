"""What a hostile portal, OAuth server and push server can do, and that a client survives it.

Every row attacks a real client in a process of its own and asserts the same: a typed error or
a dropped and counted message, a client that is well again afterwards, at most 16 MiB of memory
over idle, and an event loop that is never kept busy for long. ``HOSTILE_THOROUGH=1 pytest
tests/hostile`` tries every attack in every place, and holds the loop to 50 ms.
"""
