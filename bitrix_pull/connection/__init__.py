"""One live stream to the push server, kept alive. ``supervisor.py`` is its life from top to bottom."""
