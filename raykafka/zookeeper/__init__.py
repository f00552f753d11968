"""What ZooKeeper holds: the client and its session, the nodes and their JSON, and who reads and writes them."""
