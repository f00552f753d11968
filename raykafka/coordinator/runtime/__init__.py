"""What a coordinator does whatever it coordinates: loads an internal topic's partitions, appends, fences, keeps time."""
