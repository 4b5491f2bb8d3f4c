"""The tiny policy: a real Qwen3 or Qwen2.5-VL of about a million weights, taught here to write imperfect
documents.

It stands in for the real model where there is no GPU: the same architectures, the same chat format, an
ordinary model folder. Importing this package imports no torch; building does.
"""
