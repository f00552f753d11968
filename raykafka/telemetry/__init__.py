"""What is counted and timed on the way of a request: plain integers."""
