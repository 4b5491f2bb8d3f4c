"""The async client of the queue.

May import `workers.broker`, `workers.metrics` and the contracts of `workers`. Only this folder and
`workers.celery_app` import Celery or kombu.

The life of one request:

1. `client.QueueClient.post` makes a `handle.RequestHandle` and starts the timer of its deadline.
2. `publisher.Publisher` writes the message to the queue, when the queue has room; `on_posted` is called.
3. A worker consumes it, records the attempt, runs the job, stores the outcome and adds it to the reply stream
   of the client (`workers.celery_app.execution`, `workers.broker.outcomes`).
4. `replies.ReplyReader` reads the outcome from the stream, or by its key if the stream missed it.
5. The client resolves the handle; `on_outcome` is called. At the deadline it resolves it with TIMEOUT.

Meanwhile `cancellation.Canceller` stops the job of a cancelled request, and `repost.Reposter` posts a lost
message again. `reattach.reattach` finds the request of a client that died, or posts it.
`blocking` posts requests whose outcomes are read later. `probe` checks whether a Redis can be the queue.
"""
