"""What is counted and timed on the way of a request: plain integers, which whoever serves requests adds to."""
