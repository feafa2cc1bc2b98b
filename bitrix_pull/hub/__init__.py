"""Many portals: in one process, or on any number of machines."""
