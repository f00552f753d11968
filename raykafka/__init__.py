"""raykafka: a Kafka that lives inside a Ray cluster. ``raykafka.connect`` is the way in for Python code."""
