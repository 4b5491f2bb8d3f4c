"""verl on a CPU: a platform, an engine, a gloo group, weights over TCP, and vLLM's CPU build.

May import `policy.settings`. verl loads this package in every process of a run
(`VERL_USE_EXTERNAL_MODULES=policy.cpu`) while `verl` itself is being imported, so this module may import
nothing of verl but its platform registry. Each module uses an extension point of verl or vLLM, and names the
versions, the reason and the test that fails when it is no longer needed.
"""

from policy.cpu import platform, vllm_alias

platform.register()
vllm_alias.install()
