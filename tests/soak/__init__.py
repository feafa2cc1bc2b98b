"""What the client promises about delivery, measured. ``python -m tests.soak --list``."""
