"""Lets pytest collect the notebooks' tests: `pytest nbs`, `pytest nbs/01_data.ipynb`, `pytest nbs -k leakage`.

Every code cell that asserts is one test. The other cells run before it, in order, as its set-up, and the cells of a notebook share one
IPython shell, as they do in Jupyter. Cells with a directive of settings.ini's `tst_flags` (`#| slow`), or `#| eval: false`, are left out
unless asked for (`--run-slow`); where they assert, they show as skipped. Notebooks run in nbs/, and their runs go to a temporary folder.
"""
import ast, gc, json, linecache, os, re, sys, tempfile, traceback
from configparser import ConfigParser
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))              # what is tested is this checkout
# hypothesis would keep a `.hypothesis` where pytest was started; the processes that tests start inherit this
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", os.path.join(tempfile.gettempdir(), "gemma_peft_hypothesis"))

def setting(name: str, otherwise: str = "") -> str:
    "A value of settings.ini."
    config = ConfigParser(delimiters=["="])
    config.read(HERE.parent / "settings.ini", encoding="utf-8")
    return config.get("DEFAULT", name, fallback=otherwise)

LIBRARY = setting("lib_name", "gemma_peft")

def tst_flags() -> list[str]:
    "The flags that keep a cell out of the tests."
    return setting("tst_flags").split()

def pytest_addoption(parser):
    for flag in tst_flags(): parser.addoption(f"--run-{flag}", action="store_true", help=f"also run the notebooks' cells marked #| {flag}")

LONGEST = ("10_cli", "10a_pipeline", "10e_kernels", "05e_adamw", "05_galore", "03d_modes", "06c_statistics", "08a_ladder", "08_controls",
           "03_training", "10i_bench_cases", "04_qlora", "10c_bench")      # files, by what they take

def pytest_configure(config):
    "xdist would begin with the files of most tests; ours are in an order of their own."
    if hasattr(config.option, "loadscopereorder"): config.option.loadscopereorder = False

def pytest_collection_modifyitems(items):
    "The longest files first, so that no process is left alone with one at the end; within a file nothing moves."
    def place(item): return LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST)
    items.sort(key=place)

def pytest_collect_file(file_path, parent):
    if file_path.suffix == ".ipynb" and not file_path.name.startswith((".", "_")): return Notebook.from_parent(parent, path=file_path)

def directives(source: str) -> dict[str, str]:
    "The `#| name: value` lines a cell begins with."
    found = {}
    for line in source.splitlines():
        if line.strip() and not line.lstrip().startswith("#"): break
        if line.lstrip().startswith("#|"): name, _, value = line.lstrip()[2:].strip().replace(":", " ").partition(" "); found[name] = value.strip()
    return found

def parse(source: str) -> ast.Module:
    "A cell's syntax tree, magics and all; an empty one when the cell is not Python."
    from IPython.core.inputtransformer2 import TransformerManager
    try: return ast.parse(TransformerManager().transform_cell(source))
    except SyntaxError: return ast.Module([], [])

def statements(node):
    "Every node that runs when the cell runs: function and class bodies stay out, except a class's own."
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)): yield from statements(child)

def called(node) -> str:
    return getattr(node.func, "id", getattr(node.func, "attr", "")) if isinstance(node, ast.Call) else ""

def checks(nodes, helpers=()) -> bool:
    "Whether any node is an assertion: `assert`, a call of test_eq and its like, or of a helper that asserts."
    return any(isinstance(n, ast.Assert) or called(n).startswith("test_") or called(n) in helpers for n in nodes)

def read_cells(path: Path) -> list[dict]:
    "The code cells, each with its place, heading and flags, and whether it asserts."
    cells, heading, helpers, off = json.loads(path.read_text(encoding="utf-8"))["cells"], "", set(), tst_flags()
    found = []
    for number, cell in enumerate(cells, 1):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown": heading = next((l.lstrip("# ") for l in reversed(source.splitlines()) if l.startswith("#")), heading)
        if cell["cell_type"] != "code" or not source.strip(): continue
        given, tree = directives(source), parse(source)
        if "export" not in given and "exports" not in given:
            helpers |= {f.name for f in tree.body if isinstance(f, ast.FunctionDef) and checks(ast.walk(f))}
        flags = [f for f in off if f in given] + (["eval: false"] if given.get("eval") == "false" else [])
        found.append(dict(number=number, of=len(cells), source=source, heading=heading, flags=flags, asserts=checks(statements(tree), helpers)))
    return found

class Rewrite(ast.NodeTransformer):
    "pytest's own rewriting of `assert`, so that a failure shows the values."
    def visit(self, node):
        try:
            from _pytest.assertion.rewrite import rewrite_asserts
            rewrite_asserts(node, b"")
            for n in ast.walk(node):              # IPython fills a missing end with line 1, before the start
                if hasattr(n, "lineno") and getattr(n, "end_lineno", None) is None: n.end_lineno, n.end_col_offset = n.lineno, n.col_offset
        except ImportError: pass                  # a nicety only: without it the assertion still fails, less talkatively
        return node

class CellError(Exception):
    "A cell raised; `cell` is the one and `error` what it raised."
    def __init__(self, cell: dict, error: BaseException): self.cell, self.error = cell, error

class SetupError(Exception):
    "The cells before a test did not run to their end."

class Notebook(pytest.File):
    "A notebook: its cells run in order in one shell."
    def collect(self):
        self.cells, wanted = read_cells(self.path), {}
        for i, cell in enumerate(self.cells):
            asked = lambda flag: flag in tst_flags() and self.config.getoption(f"--run-{flag}", default=False)
            cell["skip"] = ", ".join(f"{f}: pass --run-{f}" if f in tst_flags() else f"{f}: never run" for f in cell["flags"] if not asked(f))
            if cell["asserts"]: wanted[i] = f"cell {cell['number']:03d} {cell['heading']}".strip()
        last = max((i for i, c in enumerate(self.cells) if not c["skip"]), default=-1)
        if last >= 0 and last not in wanted: wanted[last] = f"cell {self.cells[last]['number']:03d} runs to its end"
        for i, name in sorted(wanted.items()): yield Cell.from_parent(self, name=name, index=i)

    def setup(self):
        from IPython.core.interactiveshell import InteractiveShell
        from traitlets.config import Config
        self.environment, self.folder, self.main = dict(os.environ), os.getcwd(), sys.modules["__main__"]
        temporary = self.config._tmp_path_factory.mktemp("notebook")
        shared = self.config._tmp_path_factory.getbasetemp()          # one folder for all where the stages really run
        os.environ.update(MPLBACKEND="agg", TOKENIZERS_PARALLELISM="false", VIRTUAL_ENV=sys.prefix, IPYTHONDIR=str(temporary / "ipython"),
                          GEMMA_PEFT_RUNS=str((shared if self.config.getoption("--run-notest", default=False) else temporary) / "runs"))
        os.chdir(HERE)
        InteractiveShell.clear_instance()
        self.shell = InteractiveShell.instance(config=Config(HistoryManager=dict(enabled=False), InteractiveShell=dict(colors="nocolor")))
        self.shell.showtraceback = self.shell.showsyntaxerror = lambda *args, **kwargs: None      # the report shows it, once
        self.shell.ast_transformers.append(Rewrite())
        self.next, self.broken = 0, None

    def teardown(self):
        self.shell.reset(new_session=False)
        self.shell.restore_sys_module_state()
        type(self.shell).clear_instance()
        sys.modules["__main__"] = self.main
        os.chdir(self.folder)
        os.environ.clear(); os.environ.update(self.environment)
        self.shell = None
        self.enter_again()
        if torch := sys.modules.get("torch"): torch.set_default_dtype(torch.float32)
        gc.collect()

    def enter_again(self):
        "What the notebook entered in the package's registries ends with it: there stands again what the module it exports has."
        exported = next((m[1] for c in self.cells if (m := re.match(r"#\|\s*default_exp\s+(\S+)", c["source"]))), "")
        module = sys.modules.get(f"{LIBRARY}.{exported}")
        def ours(v): return getattr(v, "__module__", "") == "__main__"
        for name, other in list(sys.modules.items()):
            if not name.startswith(LIBRARY + "."): continue
            for registry in [v for v in vars(other).values() if isinstance(v, dict)]:
                for key, value in [(k, v) for k, v in registry.items() if callable(v) and ours(v)]:
                    del registry[key]                       # a class made anew would not be the one that others hold: no reload
                    if own := getattr(module, value.__name__, None): registry[key] = own
            for registry in [v for v in vars(other).values() if isinstance(v, list)]:
                registry[:] = [v for v in registry if not (isinstance(v, tuple) and any(map(ours, v)))]

    def execute(self, cell: dict):
        "Run one cell; raises CellError when it raises."
        result = self.shell.run_cell(cell["source"], store_history=True)
        if pyplot := sys.modules.get("matplotlib.pyplot"): pyplot.close("all")
        error = result.error_before_exec or result.error_in_exec
        if isinstance(error, KeyboardInterrupt): raise error
        if error: raise CellError(cell, error)

    def run_to(self, index: int):
        "Run what has not run yet, up to and including the cell at `index`."
        if self.broken: raise SetupError(f"not run: cell {self.broken['number']} of {self.path.name}, which comes before it, failed")
        while self.next <= index:
            cell = self.cells[self.next]; self.next += 1
            if cell["skip"]: continue
            try: self.execute(cell)
            except CellError:
                if not cell["asserts"]: self.broken = cell           # what comes after rests on this cell
                if self.next > index or self.broken: raise           # a test that was deselected may fail in peace

class Cell(pytest.Item):
    "One test: an asserting cell."
    def __init__(self, *, index, **kwargs):
        super().__init__(**kwargs)
        self.index, self.cell = index, self.parent.cells[index]
        if self.cell["skip"]: self.add_marker(pytest.mark.skip(reason=self.cell["skip"]))

    def runtest(self): self.parent.run_to(self.index)

    def reportinfo(self): return self.path, self.cell["number"] - 1, f"{self.path.name}, {self.name}"

    def repr_failure(self, excinfo):
        if isinstance(excinfo.value, SetupError): return str(excinfo.value)
        if not isinstance(excinfo.value, CellError): return super().repr_failure(excinfo)
        cell, error = excinfo.value.cell, excinfo.value.error
        set_up = "" if cell is self.cell else f", a set-up cell of {self.name}; the tests after it cannot run"
        where = f"{self.path.name}, cell {cell['number']} of {cell['of']}" + (f", under {cell['heading']!r}" if cell["heading"] else "") + set_up
        return "\n".join([where, "", *numbered(cell["source"], error), "", *frames(error), describe(error)])

def numbered(source: str, error: BaseException) -> list[str]:
    "The cell's lines, with an arrow at the one that raised."
    here = [f.lineno for f in traceback.extract_tb(error.__traceback__) if "".join(linecache.getlines(f.filename)).strip() == source.strip()]
    bad = error.lineno if isinstance(error, SyntaxError) else here[-1] if here else None
    return [f"{'-->' if n == bad else '   '} {n:3d}  {line}" for n, line in enumerate(source.splitlines(), 1)]

def frames(error: BaseException) -> list[str]:
    "Where in files it happened, innermost last; IPython's own frames and the cell's stay out."
    found = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.endswith(".py") and not any(p in Path(f.filename).as_posix() for p in ("/IPython/", "/_pytest/", "ipykernel_"))]
    return [f"{os.path.relpath(f.filename, HERE.parent) if f.filename.startswith(str(HERE.parent)) else f.filename}:{f.lineno} in {f.name}: {f.line}" for f in found[-6:]]

def describe(error: BaseException) -> str:
    return "".join(traceback.format_exception_only(error)).rstrip()
