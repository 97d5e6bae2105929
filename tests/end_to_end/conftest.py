import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
# What an installer needs to find its packages, wherever a machine keeps them.
INSTALLER_VARIABLES = re.compile(r"PIP_|UV_|SSL_|https?_proxy$|no_proxy$|REQUESTS_", re.IGNORECASE)


@pytest.fixture
def empty_machine(tmp_path):
    """A home folder that holds only a clone, `asit/`, and an environment with python3 and make."""
    for name in _tracked_files():
        target = tmp_path / "asit" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((REPOSITORY / name).read_bytes())
    tools = tmp_path / "tools"
    tools.mkdir()
    version = f"python3.{sys.version_info.minor}"
    (tools / "python3").symlink_to(Path(sys.base_prefix) / "bin" / version)
    environment = {k: v for k, v in os.environ.items() if INSTALLER_VARIABLES.match(k)}
    # The packages themselves need not be fetched again.
    environment.setdefault("UV_CACHE_DIR", _run("uv", "cache", "dir").strip())
    return tmp_path, environment | {"HOME": str(tmp_path), "PATH": f"{tools}:/usr/bin:/bin"}


def _tracked_files():
    """What a clone would hold, with what is not committed yet."""
    listed = _run("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    return [name for name in listed.split("\0") if name and (REPOSITORY / name).is_file()]


def _run(*command):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=REPOSITORY, env=os.environ | {"PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
