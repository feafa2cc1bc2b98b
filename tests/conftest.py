import asyncio

# pytest-asyncio looks for a current event loop before its first test; Python before 3.14
# then makes one that nobody closes, which is a ResourceWarning in some later test.
asyncio.set_event_loop(None)
