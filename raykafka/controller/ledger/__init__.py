"""The controller's state, and turns, the only way to change it."""
