"""The layers of the jail, one kernel mechanism each, and the folder a job works in.

Runs on both sides of the jail. May import nothing else of this project.
"""
