"""The jail: warm zygotes that fork one jailed child per job, to draw the charts of code that the model wrote,
or to decode pictures from outside.

`client.Renderer` and `decoders.Decoders` own the zygotes; `client.probe` says which layers of the jail this
machine gives. Nothing here imports matplotlib outside the zygote's own process.
"""
