"""What holds for every notebook and module alike: the order of the chapters, which way imports run, and the shape of an exported line."""
import ast
import json
import re
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT, PACKAGE = HERE.parent, HERE.parent / "gemma_peft"
NOTEBOOKS = sorted(HERE.glob("[0-9]*.ipynb"))
MODULES = sorted(p for p in PACKAGE.rglob("[!_]*.py") if "notebooks" not in p.parts)
WIDEST, LONGEST, MOST_CELLS, MOST_LINES = 110, 45, 64, 420      # characters a line, lines a cell, code cells a notebook, lines a module

@lru_cache(None)
def cells(notebook: Path) -> list[dict]:
    "A notebook's code cells, each with its source as one text."
    read = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [dict(c, source="".join(c["source"])) for c in read if c["cell_type"] == "code"]

def is_exported(cell: dict) -> bool: return bool(re.match(r"\s*#\|\s*export", cell["source"]))
@lru_cache(None)
def module_of(notebook: Path) -> str: return next(m[1] for c in cells(notebook) if (m := re.match(r"#\|\s*default_exp\s+(\S+)", c["source"])))
def name(path: Path) -> str: return path.stem
def chapter_of(module: str) -> str: return module.split(".")[0]

CHAPTERS = {chapter_of(module_of(n)): n.name[:2] for n in NOTEBOOKS}       # core: 00, data: 01, ...

def test_chapters():
    "A number is one chapter and one package; its letters come after it, without a gap, and each is a module of that package."
    for number in sorted({n.name[:2] for n in NOTEBOOKS}):
        own = [n for n in NOTEBOOKS if n.name.startswith(number)]
        assert {chapter_of(module_of(n)) for n in own} == {chapter_of(module_of(own[0]))}, number
        letters = [re.match(r"\d\d([a-z]?)_", n.name)[1] for n in own]
        assert sorted(letters) == ["", *map(chr, range(ord("a"), ord("a") + len(own) - 1))], [n.name for n in own]
    for n in NOTEBOOKS:
        if re.match(r"\d\d[a-z]_", n.name): assert module_of(n).split(".")[1] == n.stem.split("_", 1)[1], f"{n.name} exports {module_of(n)}"
    assert len({module_of(n) for n in NOTEBOOKS}) == len(NOTEBOOKS)

def test_reading_order():
    "The files, `render:` and the sidebar show the same pages in the same order."
    yaml = pytest.importorskip("yaml")
    site = yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))
    pages = [f"report/{n}.ipynb" for n in ("index", "colab", *map(name, NOTEBOOKS))]
    def flat(items): return [p for i in items for p in ([i] if isinstance(i, str) else [i["href"]] * ("href" in i) + flat(i.get("contents", [])))]
    assert site["project"]["render"] == pages
    assert flat(site["website"]["sidebar"]["contents"]) == pages

def imported(module: Path) -> set[str]:
    "Modules of this package that a module imports anywhere in it, such as core.run; a chapter's face is followed to where a name lives."
    here, found = module.relative_to(PACKAGE).with_suffix("").parts, set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom): continue
        if node.level: base = here[:len(here) - node.level]
        elif (node.module or "").split(".")[0] == "gemma_peft": base = ()
        else: continue
        parts = (*base, *(p for p in (node.module or "").split(".") if p and p != "gemma_peft"))
        for alias in node.names: found |= {home} if (home := home_of(parts, alias.name)) else set()
    return found

@lru_cache(None)
def home_of(parts: tuple, name: str) -> str:
    "The module in which an imported name is defined; empty for the package itself."
    if (PACKAGE.joinpath(*parts, name + ".py")).exists(): return ".".join((*parts, name))
    if (PACKAGE.joinpath(*parts).with_suffix(".py")).exists() and parts: return ".".join(parts)
    for module in PACKAGE.joinpath(*parts).glob("[!_]*.py"):
        if name in public_names(module): return ".".join((*parts, module.stem))
    return ""

@lru_cache(None)
def public_names(module: Path) -> set[str]:
    "A module's `__all__`."
    found = [n for n in ast.parse(module.read_text(encoding="utf-8")).body if isinstance(n, ast.Assign) and getattr(n.targets[0], "id", "") == "__all__"]
    return set(ast.literal_eval(found[0].value)) if found else set()

IMPORTS = {".".join(m.relative_to(PACKAGE).with_suffix("").parts): imported(m) for m in MODULES}

@pytest.mark.parametrize("module", IMPORTS)
def test_imports_run_one_way(module):
    "Code imports from lower numbers and from its own chapter, wherever the import stands."
    upward = {m for m in IMPORTS[module] if CHAPTERS[chapter_of(m)] > CHAPTERS[chapter_of(module)]}
    assert not upward, f"{module} (chapter {CHAPTERS[chapter_of(module)]}) imports {upward}"

def test_no_circles():
    "Within a chapter imports run one way too."
    def reach(module, seen=()):
        if module in seen: return [*seen[seen.index(module):], module]
        return next((c for m in IMPORTS.get(module, ()) if (c := reach(m, (*seen, module)))), None)
    circles = {" > ".join(c) for m in IMPORTS if (c := reach(m))}
    assert not circles, min(circles, key=len)

def test_no_name_in_two_places():
    "A chapter's face hands on each name from one module, and none that is a module's own: importing that would hide it."
    for chapter in CHAPTERS:
        if not (PACKAGE / chapter).is_dir(): continue
        modules = list((PACKAGE / chapter).glob("[!_]*.py"))
        twice = [n for m in modules for n in public_names(m) for o in modules if o < m and n in public_names(o)]
        assert not twice, f"{chapter}: {twice}"
        hidden = {m.stem for m in modules} & {n for m in modules for n in public_names(m)}
        assert not hidden, f"{chapter}: modules and names at once: {hidden}"

@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=name)
def test_lines(notebook):
    "An exported line can be read without scrolling, and a cell in one go."
    exported = [c["source"] for c in cells(notebook) if is_exported(c)]
    wide = [line for source in exported for line in source.splitlines() if len(line) > WIDEST]
    assert not wide, f"{len(wide)} lines wider than {WIDEST}, such as: {wide[0]}"
    long = [source.splitlines()[1] for source in exported if len(source.splitlines()) > LONGEST]
    assert not long, f"cells of more than {LONGEST} lines: {long}"

@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=name)
def test_rhythm(notebook):
    "Between two exported public definitions stands a value or a test."
    bare, pending = [], ""
    for cell in cells(notebook):
        source = cell["source"]
        if is_exported(cell) and (defined := re.search(r"^(?:def|class) ([a-zA-Z]\w*)", source, flags=re.M)):
            if pending: bare.append(pending)
            pending = defined[1]
        elif not is_exported(cell) and (re.search(r"\bassert |\btest_", source) or cell.get("outputs")): pending = ""
    assert not bare, f"{len(bare)} definitions with neither a value nor a test before the next: {bare}"

@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=name)
def test_named_functions(notebook):
    "A function that has a name is a `def`."
    lambdas = [line.strip() for c in cells(notebook) if is_exported(c) for line in c["source"].splitlines() if re.match(r"\s*\w+ = lambda\b", line)]
    assert not lambdas, lambdas

@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=name)
def test_parameters(notebook):
    "A notebook that runs a stage takes the three parameters; one that needs no run takes none."
    tagged = [c["source"] for c in cells(notebook) if "parameters" in c["metadata"].get("tags", [])]
    runs = any(re.search(r"^run = Run\.open\(", c["source"], flags=re.M) for c in cells(notebook) if not is_exported(c))
    assert bool(tagged) == runs, f"parameters: {len(tagged)} cells; opens the run they name: {runs}"

@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=name)
def test_notebook_size(notebook):
    assert len(cells(notebook)) <= MOST_CELLS, f"{len(cells(notebook))} code cells; cut it along its subjects"

@pytest.mark.parametrize("module", MODULES, ids=lambda m: ".".join(m.relative_to(PACKAGE).with_suffix("").parts))
def test_module_size(module):
    lines = len(module.read_text(encoding="utf-8").splitlines())
    assert lines <= MOST_LINES, f"{lines} lines; cut it along its subjects"

def run(tool: str, *arguments) -> str:
    "What a development tool complains about; empty when it is content. Skipped where it is not installed."
    pytest.importorskip("ruff" if tool == "ruff" else "codespell_lib", reason=f"{tool} comes with the development extra: pip install -e '.[dev]'")
    ended = subprocess.run([sys.executable, "-m", {"codespell": "codespell_lib"}.get(tool, tool), *arguments], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode in (0, 1, 65), ended.stderr
    return ended.stdout.strip() if ended.returncode else ""

def test_ruff():
    "What pyproject.toml asks of the exported modules and of the tests beside the notebooks."
    complaints = run("ruff", "check", "--no-cache", "--output-format", "concise", "gemma_peft", "nbs/test_house.py", ".ci/faces.py")
    assert not complaints, complaints

KNOWN = "rouge,te,ist,sie,fo,ue"           # words of ours, of data sets and of tokens, which are no slips

def test_spelling(tmp_path):
    "Prose, docstrings and comments have no common slip of the pen."
    texts = {p.name: p.read_text(encoding="utf-8") for p in ROOT.glob("*.md")}
    for n in [*NOTEBOOKS, HERE / "index.ipynb", HERE / "colab.ipynb"]:
        texts[n.name + ".txt"] = "\n".join("".join(c["source"]) for c in json.loads(n.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "markdown")
    texts |= {".".join(m.relative_to(PACKAGE).parts) + ".txt": m.read_text(encoding="utf-8") for m in MODULES}
    for name, text in texts.items(): (tmp_path / name).write_text(text, encoding="utf-8")
    complaints = run("codespell", "--ignore-words-list", KNOWN, str(tmp_path))
    assert not complaints, complaints.replace(str(tmp_path) + "/", "")
