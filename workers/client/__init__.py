"""The async client of the queue.

May import `workers.broker`, `workers.metrics` and the contracts of `workers`. Only this folder and
`workers.celery_app` import Celery or kombu.

The life of one request:

1. `client.QueueClient.post` makes a `handle.RequestHandle` and starts the timer of its deadline.
2. `publisher.Publisher` posts it when the queue has room (`workers.broker.posting`); `on_posted` is called.
3. A worker claims it, runs the job, stores the outcome and adds its id to the reply stream of the client
   (`workers.celery_app`, `workers.broker.outcomes`).
4. `replies.ReplyReader` reads the stream, then the outcome. Regular checks find what the stream missed,
   and requests that Redis has lost, which the client posts again.
5. The client resolves the handle; `on_outcome` is called. At the deadline it resolves it with TIMEOUT.

`blocking` posts requests whose outcomes are read later. `probe` checks whether a Redis can be the queue.
"""
