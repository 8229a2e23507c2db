"""What no line of the pipeline does, by its source: rules that assessors ask for and no other tool holds (docs/asvs.md)."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.access.roles import Role

ROOT = Path(__file__).resolve().parents[2]
#: Where patterns may be made of a field's name that is a constant of the same file.
_NAMED_FIELDS = {"pipeline/simulate/malformed.py"}
#: Who speaks HTTP to whom the settings name; the demo asks its own pages whether they are there.
_CALLERS = {
    "pipeline/access/bearer.py",
    "pipeline/demo.py",
    "pipeline/privacy/vault.py",
    "pipeline/streaming/alertmanager.py",
}


def sources() -> Iterator[tuple[str, ast.Module]]:
    for folder in ("pipeline", "schemas"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


def calls(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    """Every call with the dotted name of what is called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def is_constant(node: ast.expr) -> bool:
    """Whether nothing that comes from outside is in it: a literal, or literals put together with names in capitals."""
    if isinstance(node, ast.Constant):
        return True
    if isinstance(node, ast.JoinedStr):
        return all(isinstance(part, ast.Constant) or is_constant(part) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return is_constant(node.value)
    if isinstance(node, ast.BinOp):
        return is_constant(node.left) and is_constant(node.right)
    return isinstance(node, ast.Name) and node.id.isupper()


def found(rule: str, tree: ast.Module) -> list[str]:
    """Where a file breaks a rule."""
    wrong = []
    for name, call in calls(tree):
        first = call.args[0] if call.args else None
        keywords = {each.arg: each.value for each in call.keywords}
        last = name.rpartition(".")[2]
        breaks = {
            "eval": name in ("eval", "exec", "compile", "__import__", "pickle.loads", "pickle.load", "marshal.loads"),
            "shell": name in ("os.system", "os.popen")
            or ("shell" in keywords and ast.unparse(keywords["shell"]) != "False"),
            "pattern": name.startswith("re.")
            and last in ("compile", "search", "match", "fullmatch", "sub", "split", "findall", "finditer")
            and first is not None
            and not is_constant(first),
            "format": name.startswith(("log.", "logging."))
            and last in ("debug", "info", "warning", "error", "critical", "exception")
            and first is not None
            and not is_constant(first),
            "redirect": last in ("RedirectResponse", "CORSMiddleware"),
            "log file": name == "logging.FileHandler" or name.startswith("logging.handlers.") or "filename" in keywords,
        }[rule]
        if breaks:
            wrong.append(f"line {call.lineno}: {name}")
    return wrong


@pytest.mark.parametrize("rule", ["eval", "shell", "pattern", "format", "redirect", "log file"])
def test_no_line_breaks_the_rule(rule: str) -> None:
    excepted = _NAMED_FIELDS if rule == "pattern" else set()
    wrong = {path: broken for path, tree in sources() if path not in excepted and (broken := found(rule, tree))}
    assert wrong == {}


@pytest.mark.parametrize(
    ("rule", "line"),
    [
        ("eval", "eval(text)"),
        ("shell", "subprocess.run(words, shell=True)"),
        ("pattern", "re.compile(f'^{name}$')"),
        ("format", "log.warning(f'{who} was here')"),
        ("format", "log.error('a ' + text)"),
        ("redirect", "app.add_middleware(CORSMiddleware) or CORSMiddleware()"),
        ("log file", "logging.FileHandler('x')"),
    ],
)
def test_a_line_that_breaks_a_rule_is_found(rule: str, line: str) -> None:
    assert found(rule, ast.parse(line)) != []


def test_no_answer_lets_pages_from_elsewhere_read_it() -> None:
    assert [path for path, tree in sources() if "access-control-" in ast.unparse(tree).lower()] == []


def test_only_who_is_known_for_it_calls_others_by_http() -> None:
    clients = ("urllib.request", "http.client", "requests", "httpx", "aiohttp", "urllib3")
    callers = set()
    for path, tree in sources():
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
            if any(name in clients or name.startswith(("httpx.", "aiohttp.")) for name in names):
                callers.add(path)
        if any(name.endswith("PyJWKClient") for name, _ in calls(tree)):
            callers.add(path)
    assert callers == _CALLERS


def test_the_page_of_roles_names_all_there_are() -> None:
    table = (ROOT / "docs" / "security.md").read_text().split("## Roles\n", 1)[1].split("\n## ", 1)[0]
    named = {
        name.strip() for line in table.splitlines() if line.startswith("| ") for name in line.split("|")[1].split(",")
    }
    assert named - {"role"} == {str(role) for role in Role}
