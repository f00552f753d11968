"""The rules of one partition's replica: pure, without clock, disk, or socket."""
