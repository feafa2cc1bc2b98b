"""From the stream to the user's code: routing, a bounded inbox, and workers off the read path."""
