"""The state machines of the code, as they are seen at work: docs/state-machines.md and docs/diagrams are made here.

Nothing is drawn by hand. Random schedules of a fixed set of seeds drive the pure rules; what state each event found and
left is noted (``seen``), and drawn as an SVG and as a table (``drawn``). ``scripts/diagrams`` writes the files,
``tests/unit/test_diagrams.py`` makes them again and compares.
"""
