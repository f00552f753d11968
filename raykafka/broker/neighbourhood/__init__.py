"""A broker among others: the inter-broker port, the controller's link and what is asked on it, the other brokers."""
