"""The process that holds one model version: tokenise, schedule, run, reply.

    messages.py   what goes over the socket, and the `Predictor` seam that both ends share
    frames.py     length-prefixed msgpack over a Unix socket
    schedule.py   waiting rows by true length; which of them form the next batch
    batch.py      run one batch; a row that fails, fails alone
    items.py      gather the rows of one input; make its answer when all have run
    core.py       the pipeline, in one event loop; also used in-process
    board.py      which requests are inside the engine, readable after a crash
    host.py       the worker process: load, warm, answer frames
    client.py     the other end: one connection, many requests at once
    process.py    start and end the worker process

Data goes one way: request -> rows -> batch -> outputs -> outcomes. The HTTP
process imports `client` and `process` only, so that no engine ever lives in it.
"""
