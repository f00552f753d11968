"""What serves clients, in whichever process it stands: listeners, connections, sessions, the data APIs."""
