"""Consumer groups: the classic group protocol and committed offsets, kept in ``__consumer_offsets``.

``group`` and what it imports hold the pure rules, ``records`` the format on disk, ``shard`` one led partition of the
offsets topic, ``coordinator`` all of them, ``api`` what clients ask.
"""
