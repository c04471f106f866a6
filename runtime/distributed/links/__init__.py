"""Links between the processes of a job, and what travels on them.

transport      links for tensors, over gloo and NCCL
host_links     connections between processes of one host
link_threads   the threads between channels and links
wire_format    one batch on one route <-> tensors on a link
error_codec    errors <-> bytes
"""
