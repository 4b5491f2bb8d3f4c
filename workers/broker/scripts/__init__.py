"""Lua scripts of the broker, one file each; the header of a file documents its keys.

Has no Python modules.
"""
