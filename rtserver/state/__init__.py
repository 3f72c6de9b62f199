"""The domain: synchronous, deterministic, fed one command at a time.

Nothing here reads a clock, draws chance, opens a socket or a file, or logs. The same commands
with the same times give the same state on any machine; that is what makes the log enough.
"""
