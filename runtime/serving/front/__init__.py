"""The front: the process that talks to clients, without torch.

listening    the process that listens, signals
connections  of clients: the size and the time of a request's head
doors        around every request: token, id, log, count
log          lines of JSON: a request each, and the states of engines
app          routes, limits, statuses
status_page  the page at `/`, and its data
metrics      numbers for Prometheus
spans        of OpenTelemetry, where it is installed
recent       the requests of the last minute
assets/      the page: page.html, page.css, page.js; openapi.json describes the routes
"""
