"""The inter-broker port, and what brokers ask each other."""
