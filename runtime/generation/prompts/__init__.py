"""Prompts: texts, chats and images as a decoder takes them, and texts of what it continues.

prompt_reader   prompts of a call, checked
text            texts as ids, and back
special_tokens  tokens that files beside tokenizer.json list
chat_template   chats as texts
media           images and sounds that stand before a text
media_images    images of any grids among these
"""
