"""The stages of one process, on threads.

boxes      parts of tensors
channel    a bounded queue between two threads
routes     the manifest's tables as routes: which tensors go from which stage to which
message    messages that travel on routes
ports      endpoints of the routes in a process
worker     the thread of one stage
launcher   batches that the caller's thread launches itself
collector  the thread that completes the caller's futures
watchdog   the thread that gives up on a stage that hangs
in_flight  a stream of batches, of which some are in flight at a time
engine     all threads together: start, send, trace, close
"""
