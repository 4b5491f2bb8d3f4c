"""The tiny policy: a Qwen3 or Qwen2.5-VL of about a million weights, trained on imperfect documents.

It replaces the real model on a machine without a GPU: same architecture and chat format, an ordinary model
folder. May import `policy` and `llmi.demo.prompts`; torch only while building.
"""
