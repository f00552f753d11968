"""What a controller decides: pure functions of the cluster's state."""
