"""Consumer groups: what ``__consumer_offsets`` holds, and the rules of a group. Pure."""
