"""The process of a replica actor: it hosts replicas of one broker, and serves clients and the coordinator from them."""
