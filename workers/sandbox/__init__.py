"""The jail: zygotes that fork one jailed child per job, which draws a chart or decodes an image.

The modules of this folder run in the worker: `renderer.Renderer`, `decoders.Decoders`, `jail_report.probe`.
May import `workers.settings`, `errors` and `pixels`; only the zygote's process imports matplotlib.
"""
