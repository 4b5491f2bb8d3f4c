"""`llmi chaos`: a workload of real rollouts, queues and workers while a seed kills, stops and cuts what they
need; then an audit of every request, every blob and every number."""
