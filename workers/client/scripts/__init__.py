"""Lua scripts of the client, one file each; the header of a file documents its keys.

Has no Python modules.
"""
