"""The jail in which code written by the model draws charts: a warm zygote that forks one jailed child per
job.

`client.Renderer` owns the zygote; `client.layers` says which layers of the jail this machine gives. Nothing
here imports matplotlib outside the zygote's own process.
"""
