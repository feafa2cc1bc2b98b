"""Sending events: what is checked, and the ways they can go."""
