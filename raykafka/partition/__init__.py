"""The access to a partition's replica, wherever its process is: who leads, appends, and what may be read of its log."""
