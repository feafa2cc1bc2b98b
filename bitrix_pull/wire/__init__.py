"""Bytes to values and back: the push server's formats. No I/O and no clock in here."""
