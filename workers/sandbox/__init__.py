"""The jail: zygotes that fork one jailed child per job, which draws a chart or decodes an image.

Holds the worker's side: `renderer.Renderer`, `decoders.Decoders`, `jail_report.probe`. May import
`workers.settings`, `workers.errors` and its subfolders; only the zygote's process imports matplotlib.
"""
