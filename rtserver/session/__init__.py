"""One connected party, whatever the transport: who it is, what it hears, what waits for it."""
