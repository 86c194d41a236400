"""The executor on a cluster: kopf's events into one work queue, one reconcile, one door to the API server."""
