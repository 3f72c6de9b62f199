"""Measurements: what the server costs, beside redis in the same run.

    pip install 'rtserver[bench]'       # redis-py, hiredis and matplotlib; redis-server beside it
    python -m bench                     # everything, about 27 minutes
    python -m bench counter board --rounds 3 --seconds 1 --json run.json --plot run.png

How to read a result. Servers have one core, load has another; both servers get the same requests
from the same generator, in alternating rounds. `median` and `min - max` are over rounds. `ratio to
peer` (redis; for fan-out nginx + nchan, or a bare loop of send()) is of the medians, behind it the
range over neighbouring rounds; for rates more than 1 is better, for times and memory less.
`by processor time` divides by what the server's main thread ran, which a busy machine disturbs
less. `wanted` is the project's own bound (bench/wanted.py) and whether this run reached it. The
header says what the generator reaches alone: a rate near it says nothing about a server.

Where the pieces are: `workloads/` what is measured, `contest` the rounds, `peers` and `nchan` the
servers, `load` and load.c the generator, `buyers` and buyers.c the one that says what it was told,
`sales` the sales, `sockets` and sockets.c thousands of WebSockets that
listen, `listeners` and `cutter` clients of the SDK and what cuts them off, `supplies` the requests,
`report` and `plot` the output.
"""
