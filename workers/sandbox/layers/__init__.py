"""The layers of the jail, one kernel mechanism a module, and the folder of a job.

Used on both sides of the jail. May import nothing else of this project.
"""
