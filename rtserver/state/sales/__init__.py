"""Sales: a book of balances, a ledger of steps, a hall of seats, a queue, and the rules between.

`sales` is the registry, `sale` one of them with its life; `buying` and `stocking` move its units,
`views` tells of them, `reckoning` and `audit` count again.
"""
