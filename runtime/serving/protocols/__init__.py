"""The protocols that clients speak: bodies of requests -> arrays and wishes, and back.

oip                the Open Inference Protocol: requests and answers as JSON and bytes
openai_requests    the OpenAI API: what a request for texts asks for
openai_answers     its answers, whole or as events
openai_embeddings  its embeddings: requests and answers
"""
