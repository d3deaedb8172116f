"The tests of conftest.py: toy notebooks go through pytest in a folder of their own."
import json, os, re, shutil, subprocess, sys
from pathlib import Path

HERE = Path(__file__).parent
BARE = {k: v for k, v in os.environ.items() if k != "HYPOTHESIS_STORAGE_DIRECTORY"}      # what a person's shell has, without what conftest.py set

def collect(folder: Path, cells: list, *options) -> tuple[int, str]:
    "Exit code and output of pytest on a notebook made of `cells` (code; text that begins with '# ' is a heading)."
    (folder / "nbs").mkdir(exist_ok=True)
    (folder / "settings.ini").write_text("[DEFAULT]\ntst_flags = notest slow cuda\n")
    shutil.copy(HERE / "conftest.py", folder / "nbs")
    kind = lambda source: dict(cell_type="markdown", metadata={}) if source.startswith("# ") else dict(cell_type="code", metadata={}, outputs=[], execution_count=None)
    nb = dict(cells=[kind(c) | dict(source=c.splitlines(keepends=True)) for c in cells], metadata={}, nbformat=4, nbformat_minor=5)
    (folder / "nbs/toy.ipynb").write_text(json.dumps(nb))
    done = subprocess.run([sys.executable, "-m", "pytest", "nbs", "-rs", "-p", "no:cacheprovider", *options], cwd=folder, env=BARE, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr

def counts(output: str) -> dict:
    "What pytest's closing line counts."
    return {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|skipped|error)", output.strip().splitlines()[-1])}

def test_a_false_assertion_is_caught_and_shown(tmp_path):
    code, out = collect(tmp_path, ["# Sums", "def double(x): return 2 * x", "x = 3\nassert double(x) == 7", "assert double(1) == 2"])
    assert code == 1 and counts(out) == dict(failed=1, passed=1)
    assert "cell 3 of 4, under 'Sums'" in out and "-->   2  assert double(x) == 7" in out and "assert 6 == 7" in out
    assert "IPython" not in out

def test_a_flag_is_a_skip_unless_asked_for(tmp_path):
    cells = ["#| slow\nassert False", "#| notest\nx = 1 / 0", "#| eval: false\nassert False", "assert True"]
    code, out = collect(tmp_path, cells)
    assert code == 0 and counts(out) == dict(skipped=2, passed=1) and "slow: pass --run-slow" in out
    code, out = collect(tmp_path, cells, "--run-slow")
    assert code == 1 and counts(out) == dict(failed=1, skipped=1, passed=1)

def test_a_failing_set_up_cell_is_reported_once(tmp_path):
    code, out = collect(tmp_path, ["assert True", "y = 1 / 0", "assert y == 1", "assert y == 2"])
    assert code == 1 and counts(out) == dict(failed=2, passed=1)
    assert "cell 2 of 4, a set-up cell of cell 003" in out and out.count("-->") == 1
    assert "not run: cell 2 of toy.ipynb" in out

def test_what_counts_as_a_test(tmp_path):
    exported = "#| export\ndef f(x):\n    assert x\n    return x"          # an exported function's own check is no test
    helper = "def check(x): assert f(x) == x"                              # a helper that asserts is one where it is called
    code, out = collect(tmp_path, [exported, helper, "check(1)", "%time check(2)\nf(1)", "test_thing = f\ntest_thing(3)", "f(0)"], "-v")
    assert counts(out) == dict(failed=1, passed=2), out                    # cells 3 and 5 pass, the last cell must run to its end
    assert "cell 003" in out and "cell 005" in out and "cell 006 runs to its end" in out

def test_one_test_alone_runs_what_it_needs(tmp_path):
    code, out = collect(tmp_path, ["# First", "x = 1", "assert x == 2\nx = 5", "# Second", "assert x == 1"], "-k", "Second")
    assert code == 0 and counts(out)["passed"] == 1

def test_notebooks_do_not_see_each_other(tmp_path):
    (tmp_path / "nbs").mkdir()
    first = dict(cells=[dict(cell_type="code", metadata={}, source="import os\nx = os.environ['LEAK'] = 'a'\nassert x == 'a'", outputs=[], execution_count=None)],
                 metadata={}, nbformat=4, nbformat_minor=5)
    (tmp_path / "nbs/a_first.ipynb").write_text(json.dumps(first))
    code, out = collect(tmp_path, ["import os\nassert 'x' not in globals() and 'LEAK' not in os.environ\nassert os.environ['GEMMA_PEFT_RUNS'].endswith('runs')"])
    assert code == 0 and counts(out) == dict(passed=2), out

def test_what_imagines_leaves_nothing_in_a_persons_folder(tmp_path):
    "A run's notebooks execute in the person's folder, where hypothesis would keep a `.hypothesis` of its own."
    sources = {p.name: "".join("".join(c["source"]) + "\n" for c in json.loads(p.read_text(encoding="utf-8"))["cells"]) for p in HERE.glob("*.ipynb")}
    users = {name for name, text in sources.items() if re.search(r"^\s*(?:import|from) hypothesis\b", text, flags=re.M)}
    assert users and not {name for name in users if "set_hypothesis_home_dir(" not in sources[name]}
    code = """import tempfile
from hypothesis import given, strategies
from hypothesis.configuration import set_hypothesis_home_dir
SET
given(strategies.text())(lambda text: None)()"""
    for line, left in (("set_hypothesis_home_dir(tempfile.mkdtemp())", []), ("", [".hypothesis"])):       # the second shows that the line is needed
        subprocess.run([sys.executable, "-c", code.replace("SET", line)], cwd=tmp_path, env=BARE, check=True)
        assert [p.name for p in tmp_path.iterdir()] == left

def test_tests_leave_nothing_beside_them(tmp_path):
    "Also where a test forgets to say where hypothesis may write, in pytest or in a process it starts."
    draw = "from hypothesis import given, strategies\nseen = []\ngiven(strategies.text())(lambda text: seen.append(text))()\nassert seen"
    child = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {draw!r}], check=True)\nassert True"
    code, out = collect(tmp_path, [draw, child])
    assert code == 0 and counts(out) == dict(passed=2), out
    left = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if "__pycache__" not in p.parts}
    assert left == {"nbs", "nbs/conftest.py", "nbs/toy.ipynb", "settings.ini"}

def test_what_a_notebook_enters_in_a_registry_ends_with_it(tmp_path):
    code, out = collect(tmp_path, ["assert True"])
    (tmp_path / "settings.ini").write_text("[DEFAULT]\ntst_flags = notest slow cuda\nlib_name = lib\n")
    (tmp_path / "lib").mkdir(); (tmp_path / "lib/__init__.py").touch()
    (tmp_path / "lib/registry.py").write_text("KNOWN = {}\n")
    entry = "from lib.registry import KNOWN\ndef helper(): return 3\ndef three(): return helper()\nKNOWN['three'] = three\n"
    (tmp_path / "lib/entry.py").write_text(entry)
    use = "import lib.entry\nfrom lib.registry import KNOWN\nassert KNOWN['three']() == 3"
    for name, cells in dict(a=[use], b=["#| default_exp entry", "#| export\n" + entry, "assert KNOWN['three']() == 3"], c=[use]).items():
        nb = dict(cells=[dict(cell_type="code", metadata={}, outputs=[], execution_count=None, source=c) for c in cells], metadata={}, nbformat=4, nbformat_minor=5)
        (tmp_path / f"nbs/{name}.ipynb").write_text(json.dumps(nb))
    done = subprocess.run([sys.executable, "-m", "pytest", "nbs", "-p", "no:cacheprovider"], cwd=tmp_path, env=BARE, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert counts(done.stdout) == dict(passed=4)
