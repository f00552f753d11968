"""Coordinators: state that lives in an internal topic, kept by the broker that leads its partition.

``runtime`` does what is the same for all of them: it loads partitions, appends and answers what is committed, fences by
leader epoch, keeps time. What is coordinated is plugged in as pure rules (``runtime.coordinated``), which share the
words of ``step``. Consumer groups are the first: ``group`` has a group's records and its rules, made of ``classic``
(members) and ``offsets``; ``coordinator`` what the broker and clients ask of them, ``api`` one module for each request.
"""
