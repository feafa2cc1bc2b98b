"""The REST side: credentials, calls, and the Push & Pull configuration of a portal."""
