"""What lets stock verl train on a CPU: a platform, an engine, a gloo group, weights over TCP, and vLLM's CPU
build.

Loaded by verl in every process of a run, through `VERL_USE_EXTERNAL_MODULES=policy.cpu`, while `verl` itself
is being imported; so this module may import nothing of verl but its platform registry. Nothing of verl or
vLLM is changed: each module here plugs into an extension point and says what it is for and which test tells
when it can go.
"""

from policy.cpu import platform, vllm_alias

platform.register()
vllm_alias.install()
