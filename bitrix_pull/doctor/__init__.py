"""Why a client gets no events: checks in order, each with what to do about what it finds."""
