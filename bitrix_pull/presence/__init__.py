"""Who is online, and watches that are kept alive on the portal."""
