"""`ops/gpu_check.sh`: what only a machine with GPUs can run, section by section.

May import everything but `llmi.load`.
"""
