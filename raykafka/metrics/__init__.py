"""What Prometheus sees of a cluster: every broker answers ``/metrics`` for itself.

``catalogue`` names every metric once. ``sources`` says of whom metrics are read; the broker's process plugs itself in
(``exporter``). What is counted on the way of a request is in ``raykafka.telemetry``; everything else is read at the
scrape: from the broker (``broker_families``), from the active controller if it runs here (``cluster_families``), and
for consumer lag from the coordinator and the leaders (``consumer_lag``). ``scrape`` puts them together, ``exposition``
turns them into text without holding up the event loop, ``http`` serves that.
"""
