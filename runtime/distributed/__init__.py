"""The processes of a job, which torchrun starts, or another program that gives each its rank.

job_address    the place of a process: its rank, and where the processes meet
parent         orphan detection: whether the process that started this one is still there
sigterm        delayed SIGTERM, so that the cause of a failure is reported first
exit           ending processes
control_line   a connection between two processes for JSON values
rendezvous     the peers of a job, and how they find each other
monitor        the thread that notices when peers fail, and tells them of faults here
links/         links for tensors and what travels on them
control        control messages from rank 0 <-> tensors
network        the endpoints of all routes of this process
bootstrap      all of it: this process's part of a job
"""
