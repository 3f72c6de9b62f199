"""`python -m rtserver` is the `rtserver` command."""

from __future__ import annotations

from rtserver.cli import main

if __name__ == "__main__":
    main()
