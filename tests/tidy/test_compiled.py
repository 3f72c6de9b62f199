"""The compiled form: one list, built where it can be, optional everywhere."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

from rtserver import compiled

ROOT = Path(__file__).parents[2]
EXTENSIONS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"][
    "ext-modules"
]


def test_the_list_names_what_is_built():
    built = [one["name"] for one in EXTENSIONS if one["name"].startswith("rtserver.")]
    assert built == list(compiled.MODULES)
    written = {str(path.relative_to(ROOT)) for path in (ROOT / "rtserver").rglob("*.pyx")}
    sources = {one["sources"][0] for one in EXTENSIONS if "rtserver." in one["name"]}
    assert written == {source for source in sources if source.endswith(".pyx")}
    for shared in sources - written:  # plain Python that is built under another name
        module = Path(shared)
        assert (ROOT / module.with_name(f"_{module.stem}.pxd")).is_file()


def test_an_install_does_without_a_compiler():
    assert all(one["optional"] for one in EXTENSIONS)


def active(pure: str) -> list[str]:
    code = "from rtserver.compiled import active_modules; print(*active_modules())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"RTSERVER_PURE": pure, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_the_environment_switches_it_off():
    assert active("1") == []
    assert active("0") in ([], list(compiled.MODULES))
