"""Makes a golden directory of the present format: what future versions must still read.

    python -m tests.recovery.make_golden tests/recovery/golden/v1

Run once for each format and committed; the test reads it for ever. The store has an archived
segment, two snapshots, closed segments, and an open one as a kill leaves it. Its segments have
the least size, and the zeros at the end of the open one are left to the test, so it stays small.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.persist.states import SMALL, STORE
from tests.recovery.stores import Made


def main() -> None:
    target = Path(sys.argv[1])
    target.mkdir(parents=True)
    made = Made(stopped=False, snapshots=3, marked=False)
    for path in made.disk.names:
        file = target / path.relative_to(STORE)
        file.parent.mkdir(exist_ok=True)
        data = made.disk.bytes_of(path)
        file.write_bytes(data.rstrip(b"\0") if len(data) == SMALL.segment_bytes else data)
    text = json.dumps(made.records, default=bytes.hex, indent=1)
    (target / "records.json").write_text(text + "\n", "ascii")


if __name__ == "__main__":
    main()
