"""A page and an HTTP interface on this machine, to try checkpoints.

`schemas` has the requests and answers of each task, `services` makes the answers out of checkpoints, `service` says
what another extra may offer, `batching` makes batches of requests that come together, `app` is the HTTP interface with
its limits, `page.html` and `api.html` are what a browser shows, and `cli` is the verb.
"""

VERBS = {"serve": ("src.extras.serve.cli:serve", "try checkpoints in a browser, on this machine alone")}
