"""Chaos in a whole cluster: faults at random under load, and a check of everything that clients saw. The model is in
docs/chaos.md."""
