"""What a coordinator does whatever it coordinates: load an internal topic's partitions, append, fence, keep time."""
