"""Chats with a decoder that `stagecut serve` serves, by OpenAI's client, word by word.

python examples/serve_chat.py http://127.0.0.1:8000 "Hello."
"""

import sys

import openai


def main(url: str, text: str) -> None:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")  # the server's token, if it has one
    [model] = client.models.list()
    messages = [{"role": "user", "content": text}]
    for event in client.chat.completions.create(model=model.id, messages=messages, max_tokens=32, seed=1, stream=True):
        print(event.choices[0].delta.content or "", end="", flush=True)
    print()


if __name__ == "__main__":
    main(*sys.argv[1:])
