"""`rtserver demo sale`: a crowd that wants the seats of a hall, and a check of all it was told.

Bottom up: `plans` draws who comes and what they do, `diary` keeps what they were told, `till` and
`visit` are how one of them buys, `crowd` is all of them together, `books` is what the sale says of
itself, `reconcile` compares the two. The shop is a back end that acts for most of its customers;
some buyers have a connection of their own.
"""
