"""The access to a partition's replica, wherever that is open: who leads, appends, and what may be read of its log."""
