"""Routes between two processes of a host, over which tensors go through shared blocks.

packets   messages, tensors apart, <-> bytes
link      a route, and what both of its ends need
outlet    its end that sends
inlet     its end that receives
"""
