"""`kubectl prism`: runs on a cluster as a person at a terminal sees them. Only `door` speaks to the API server."""
