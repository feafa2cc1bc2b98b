"""The REST side: credentials, calls, and the Push & Pull configuration of a portal.

- A call: ``rest`` makes it within ``rate_limits`` over the session of ``http``, and
  ``answers`` reads what comes back.
- Who calls: ``auth``, and ``oauth`` with its ``tokens``, which the ``token_*`` modules keep.
- Where secrets may go: ``addresses`` is the grammar, ``destinations`` the judge.
- What is asked for: ``config``, ``public_channels``, and their ``models``.
"""
