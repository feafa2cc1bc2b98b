"""The portal's own events, from its offline queue, as they happen (protocol §10)."""
