"""What the server can do: one table of commands, their handlers, and the path every call takes."""
