"""Decisions of the controller: each reads the ledger's state, plans by the pure rules, and writes in a turn."""
