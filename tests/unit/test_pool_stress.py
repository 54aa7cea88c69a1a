"""The pool's stress test (``native/stress/pool_stress.cc``: threads, forks, plans), plain and under the sanitizers."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMPILER = shutil.which(os.environ.get("CXX") or "c++") or shutil.which("g++")
SOURCES = [
    ROOT / "native/stress/pool_stress.cc",
    *(ROOT / "native/core").glob("pool*.cc"),
    ROOT / "native/core/greedy_placement.cc",
]


@pytest.mark.parametrize("sanitizer", ["none", "address,undefined", "thread"])
def test_nothing_is_found(sanitizer: str, tmp_path: Path) -> None:
    if COMPILER is None:
        pytest.skip("there is no C++ compiler")
    if not SOURCES[0].exists():
        pytest.skip("the C++ sources are not here")
    checks = [] if sanitizer == "none" else [f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"]
    flags = [COMPILER, "-std=c++17", "-O1", "-g", *checks]
    (tmp_path / "empty.cc").write_text("int main() { return 0; }\n")
    probe = [*flags, str(tmp_path / "empty.cc"), "-o", str(tmp_path / "empty")]
    runs = subprocess.run(probe, capture_output=True, check=False).returncode == 0
    if not runs or subprocess.run([tmp_path / "empty"], capture_output=True, check=False).returncode != 0:
        pytest.skip(f"this compiler or system has no -fsanitize={sanitizer}")
    program = tmp_path / "stress"
    subprocess.run([*flags, f"-I{ROOT / 'native'}", *map(str, SOURCES), "-o", str(program), "-lpthread"], check=True)
    done = subprocess.run([program, "500", "4"], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "all accounted for" in done.stdout
