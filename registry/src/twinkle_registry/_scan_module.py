"""One Python file, read for the scan: names are followed to the modules that they come from, and looked up in the rules.

What the code would do is never tried out. Names are followed through imports, plain assignments and constant strings; what goes
further (a name computed at run time) is itself a finding. Everything here ends soon, whatever the source is.
"""

from __future__ import annotations

import ast
import re
import unicodedata
import warnings
from collections.abc import Iterator
from typing import NamedTuple

from twinkle_registry import _scan_rules as rules

_COOKIE = re.compile(rb"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")  # PEP 263
_UTF8 = frozenset({"utf-8", "utf8", "utf_8", "utf-8-sig", "u8", "ascii", "us-ascii"})
_FOLD_DEPTH = 40
_MAX_FOLDED = 10_000  # characters: a constant expression isn't allowed to use up the memory
_MAIN = "__main__"

Scope = str
"""Which function of the module a line belongs to; ``""`` is what runs when it is imported."""


class ScanFinding(NamedTuple):
    """One thing that the source can do.

    Attributes:
        file: relative path in the repository.
        line: counted from 1.
        rule: which rule found it: ``import``, ``use``, ``attribute``, ``lookup``, ``changes-others``, ``at-import``, ``decodes``,
            ``long-line``, ``long-text``, ``invisible``, ``encoding``, ``unreadable``, ``too-deep``, ``too-large``, ``native-file``.
        capability: what the code can do with it: ``network``, ``subprocess``, ``native``, ``files``, ``pickle``, ``dynamic-code``,
            ``environment``, ``global-state``, and ``hidden`` for what keeps a reader from seeing it.
        message: for a person; goes on where ``file:line`` ends.
    """

    file: str
    line: int
    rule: str
    capability: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}"


def findings_in(path: str, content: bytes) -> set[ScanFinding]:
    """What the Python source ``content`` can do; ``path`` is what findings call it."""
    found = set(_of_text(path, content))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of invalid escapes and the like, which are the author's
            tree = ast.parse(content)
        found |= _Module(path, tree).findings()
    except (RecursionError, MemoryError):
        found.add(ScanFinding(path, 1, "too-deep", "hidden", "is nested too deep to read"))
    except (SyntaxError, ValueError, LookupError, OverflowError) as error:
        line = getattr(error, "lineno", None) or 1
        reason = getattr(error, "msg", None) or str(error)
        if "too many nested" in reason or "too many levels" in reason:
            found.add(ScanFinding(path, line, "too-deep", "hidden", f"is nested too deep to read ({reason})"))
        else:
            found.add(ScanFinding(path, line, "unreadable", "hidden", f"can't be read as Python: {reason}"))
    return found


def _of_text(path: str, content: bytes) -> Iterator[ScanFinding]:
    """What the bytes alone tell."""
    for line in content.split(b"\n", 2)[:2]:
        cookie = _COOKIE.match(line)
        if cookie and cookie.group(1).decode("ascii", "replace").lower() not in _UTF8:
            name = cookie.group(1).decode("ascii", "replace")
            yield ScanFinding(path, 1, "encoding", "hidden", f"declares the encoding {name!r}; what is shown may not be what runs")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line_number = content.count(b"\n", 0, error.start) + 1
        yield ScanFinding(path, line_number, "encoding", "hidden", "isn't UTF-8; what is shown may not be what runs")
        return
    for number, shown in enumerate(text.split("\n"), 1):
        if len(shown) > rules.MAX_LINE:
            yield ScanFinding(path, number, "long-line", "hidden", f"has a line of {len(shown):,} characters; look at its end")
        if not shown.isascii() and (odd := next((char for char in shown if _is_invisible(char)), None)):
            message = f"has the invisible character U+{ord(odd):04X}; what is shown may not be what runs"
            yield ScanFinding(path, number, "invisible", "hidden", message)


def _is_invisible(char: str) -> bool:
    # Direction marks and zero-width characters (CVE-2021-42574); the byte order mark and the soft hyphen are among them.
    return not char.isascii() and unicodedata.category(char) in ("Cf", "Co", "Cs", "Zl", "Zp")


class _Module:
    """One parsed module."""

    def __init__(self, path: str, tree: ast.Module) -> None:
        self._path = path
        self._tree = tree
        self._names: dict[str, str] = {}
        self._roots = {"bytes", "bytearray"}
        """The modules that names come from. A variable that happens to be called as one (``code``) isn't taken for it."""
        self._found: set[ScanFinding] = set()
        self._of_scope: dict[Scope, list[ScanFinding]] = {}
        self._calls: dict[Scope, list[tuple[str, int]]] = {}
        self._decodes: list[int] = []
        self._executes: list[int] = []

    def findings(self) -> set[ScanFinding]:
        nodes = list(_with_scopes(self._tree))
        # Twice: a name may be used before the line that gives it.
        for _ in range(2):
            for node, _scope in nodes:
                self._learn_names(node)
        for node, scope in nodes:
            self._look_at(node, scope)
        self._at_import()
        if self._decodes and self._executes:
            message = f"decodes data in a file that also executes code (line {min(self._executes)})"
            self._found.update(ScanFinding(self._path, line, "decodes", "dynamic-code", message) for line in self._decodes)
        return self._found

    def _learn_names(self, node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                root = alias.name.partition(".")[0]
                self._names[alias.asname or root] = alias.name if alias.asname else root
                self._roots.add(root)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            self._names.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
            self._roots.add(node.module.partition(".")[0])
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            name = self._dotted(node.value)
            for target in targets:
                if name and isinstance(target, ast.Name) and target.id not in self._names and name != target.id:
                    self._names[target.id] = name

    def _dotted(self, node: ast.AST) -> str | None:
        """What ``node`` names, in full (``os.system``); ``None`` where it can't be told."""
        parts: list[str] = []
        for _ in range(_FOLD_DEPTH):
            if isinstance(node, ast.Attribute):
                parts.append(node.attr)
                node = node.value
            elif isinstance(node, ast.Name):
                name = self._names.get(node.id, node.id)
                return _without_builtins(".".join([name, *reversed(parts)]))
            else:
                inner = self._looked_up(node)
                if inner is None:
                    return None
                return _without_builtins(".".join([inner, *reversed(parts)]))
        return None

    def _looked_up(self, node: ast.AST) -> str | None:
        """What a call or a subscript gives that stands for a name: ``__import__("os")``, ``sys.modules["os"]``."""
        if isinstance(node, ast.Call):
            return self._by_call(node)
        return self._by_key(node) if isinstance(node, ast.Subscript) else None

    def _by_call(self, node: ast.Call) -> str | None:
        """What ``__import__("os")``, ``import_module("os")`` and ``getattr(os, "system")`` give."""
        function = node.func
        if not isinstance(function, ast.Name | ast.Attribute) or not node.args:
            return None
        name = self._dotted(function)
        if name in ("__import__", "importlib.import_module", "importlib.__import__"):
            return self._looked_up_module(_folded(node.args[0]))
        if name == "getattr" and len(node.args) > 1:
            base, attribute = self._dotted(node.args[0]), _folded(node.args[1])
            return _without_builtins(f"{base}.{attribute}") if base and attribute else None
        return None

    def _by_key(self, node: ast.Subscript) -> str | None:
        """What ``sys.modules["os"]``, ``globals()["eval"]``, ``vars(os)["system"]`` and ``os.__dict__["system"]`` give."""
        key = _folded(node.slice)
        if not key:
            return None
        base = node.value
        if isinstance(base, ast.Call) and isinstance(base.func, ast.Name):
            if base.func.id in ("globals", "locals"):
                return self._names.get(key, key)
            if base.func.id == "vars" and base.args:
                inner = self._dotted(base.args[0])
                return _without_builtins(f"{inner}.{key}") if inner else None
            return None
        inner = self._dotted(base)
        if inner == "sys.modules":
            return self._looked_up_module(key)
        if inner == "__builtins__":
            return key
        if inner and inner.endswith("__dict__"):
            return _without_builtins(f"{inner.removesuffix('__dict__')}{key}")
        return None

    def _looked_up_module(self, name: str | None) -> str | None:
        if name:
            self._roots.add(name.partition(".")[0])
        return name

    def _add(self, line: int, rule: str, capability: str, message: str, scope: Scope) -> None:
        finding = ScanFinding(self._path, line, rule, capability, message)
        self._found.add(finding)
        if rule != "import":
            self._of_scope.setdefault(scope, []).append(finding)

    def _look_at(self, node: ast.AST, scope: Scope) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                self._imported(alias.name, node.lineno, scope)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            for alias in node.names:
                self._imported(f"{node.module}.{alias.name}", node.lineno, scope)
        elif isinstance(node, ast.Name | ast.Attribute):
            self._used(node, scope)
        elif isinstance(node, ast.Call):
            self._called(node, scope)
        elif isinstance(node, ast.Subscript):
            if name := self._looked_up(node):
                self._named(name, node.lineno, scope, "lookup")
        elif isinstance(node, ast.FunctionDef) and node.name in ("__reduce__", "__reduce_ex__"):
            self._add(node.lineno, "attribute", "pickle", f"defines {node.name}, which {rules.WHAT['pickle']}", scope)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
            self._constant(node.value, node.lineno, scope)
        if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign | ast.Delete | ast.For | ast.With):
            self._changed(node, scope)

    def _imported(self, name: str, line: int, scope: Scope) -> None:
        module = name
        while module:
            if capability := rules.MODULES.get(module):
                self._add(line, "import", capability, f"imports {module}, which {rules.WHAT[capability]}", scope)
                return
            module = module.rpartition(".")[0]
        if capability := rules.NAMES.get(name):
            self._add(line, "import", capability, f"imports {name}, which {rules.WHAT[capability]}", scope)
        if name.endswith(".*") and any(known.startswith(name[:-1]) for known in rules.NAMES):
            self._add(
                line, "import", "dynamic-code", f"imports everything of {name[:-2]}, so that its names can't be followed", scope
            )

    def _named(self, name: str, line: int, scope: Scope, rule: str) -> bool:
        """Tell what using ``name`` means; whether anything is known of it."""
        if "." in name and name.partition(".")[0] not in self._roots:
            return False
        if name in rules.EXECUTORS:
            self._executes.append(line)
        if name in rules.DECODERS:
            self._decodes.append(line)
        if capability := rules.NAMES.get(name):
            self._add(line, rule, capability, f"uses {name}, which {rules.WHAT[capability]}", scope)
            return True
        module = name
        while "." in module:
            module = module.rpartition(".")[0]
            if capability := rules.MODULES.get(module):
                self._add(line, rule, capability, f"uses {name}, which {rules.WHAT[capability]}", scope)
                return True
        if rule == "lookup" and (capability := rules.MODULES.get(name)):
            self._add(line, rule, capability, f"looks up {name}, which {rules.WHAT[capability]}", scope)
            return True
        return False

    def _used(self, node: ast.Name | ast.Attribute, scope: Scope) -> None:
        name = self._dotted(node)
        if name and self._named(name, node.lineno, scope, "use"):
            return
        if isinstance(node, ast.Attribute) and (capability := rules.ATTRIBUTES.get(node.attr)):
            self._add(node.lineno, "attribute", capability, f"uses .{node.attr}, which {rules.WHAT[capability]}", scope)

    def _called(self, node: ast.Call, scope: Scope) -> None:
        name = self._dotted(node.func)
        if result := self._by_call(node):
            self._named(result, node.lineno, scope, "lookup")
        is_decode = isinstance(node.func, ast.Attribute) and node.func.attr == "decode" and node.args
        if is_decode and (_folded(node.args[0]) or "").lower().replace("-", "_") in rules.HIDING_CODECS:
            self._decodes.append(node.lineno)
        if name is None:
            return
        self._calls.setdefault(scope, []).append((name, node.lineno))
        if name in ("torch.load", "numpy.load") and not _loads_only_data(name, node):
            self._add(node.lineno, "use", "pickle", f"uses {name} on pickles, which {rules.WHAT['pickle']}", scope)
        elif name in ("torch.load", "numpy.load"):
            self._add(node.lineno, "use", "files", f"uses {name}, which {rules.WHAT['files']}", scope)
        if name in ("getattr", "setattr", "delattr") and len(node.args) > 1:
            self._by_name(name, node, scope)

    def _by_name(self, function: str, node: ast.Call, scope: Scope) -> None:
        """``getattr`` and its like on a module: with a name that isn't in the source, or to change it."""
        base = self._dotted(node.args[0])
        if base is None or not self._is_foreign(node.args[0]):
            return
        if function != "getattr":
            message = f"changes an attribute of {base} with {function}, which {rules.WHAT['global-state']}"
            self._add(node.lineno, "changes-others", "global-state", message, scope)
        elif _folded(node.args[1]) is None:
            message = f"looks up a name in {base} that isn't in the source, so that it can't be followed"
            self._add(node.lineno, "lookup", "dynamic-code", message, scope)

    def _is_foreign(self, node: ast.AST) -> bool:
        """Whether ``node`` begins with a name that was imported from elsewhere, or with ``builtins``."""
        while isinstance(node, ast.Attribute | ast.Subscript):
            if self._looked_up(node):
                return True
            node = node.value
        name = self._dotted(node)
        return name is not None and (name == "__builtins__" or name.partition(".")[0] in self._roots)

    def _changed(self, node: ast.AST, scope: Scope) -> None:
        """Assignments to what belongs to other modules."""
        targets: list[ast.AST] = []
        if isinstance(node, ast.Assign | ast.Delete):
            targets = list(node.targets)
        elif isinstance(node, ast.AugAssign | ast.AnnAssign | ast.For):
            targets = [node.target]
        elif isinstance(node, ast.With):
            targets = [item.optional_vars for item in node.items if item.optional_vars is not None]
        while targets:
            target = targets.pop()
            if isinstance(target, ast.Tuple | ast.List):
                targets += target.elts
            elif isinstance(target, ast.Attribute | ast.Subscript) and self._is_foreign(target):
                name = self._dotted(target if isinstance(target, ast.Attribute) else target.value)
                message = f"changes {name or 'a module that it looks up'}, which isn't its own"
                self._add(target.lineno, "changes-others", "global-state", message, scope)

    def _constant(self, value: str | bytes, line: int, scope: Scope) -> None:
        if len(value) <= rules.MAX_TEXT:
            return
        longest = max(map(len, value.split()), default=0)
        if longest > rules.MAX_TEXT:
            self._add(
                line, "long-text", "hidden", f"holds {longest:,} characters without a space, which may be encoded code", scope
            )

    def _at_import(self) -> None:
        """Mark what runs when the module is imported, by itself or through functions of the module."""
        scopes = self._of_scope.keys() | self._calls.keys()
        reached: dict[Scope, int] = {"": 0}
        pending = [""]
        while pending:
            scope = pending.pop()
            for name, line in self._calls.get(scope, ()):
                for callee in (name, f"{name}.__init__", f"{name}.__new__"):
                    if callee in scopes and callee not in reached:
                        reached[callee] = reached[scope] or line
                        pending.append(callee)
        for scope, line in reached.items():
            for finding in self._of_scope.get(scope, ()):
                if finding.capability in rules.AT_IMPORT:
                    message = f"at import, {finding.message}" + (f" (through {scope})" if scope else "")
                    if not scope:
                        self._found.discard(finding)
                    self._found.add(finding._replace(line=line or finding.line, rule="at-import", message=message))


def _without_builtins(name: str) -> str:
    return name.removeprefix("__builtins__.").removeprefix("builtins.")


def _loads_only_data(name: str, node: ast.Call) -> bool:
    given = {keyword.arg: keyword.value for keyword in node.keywords}
    value = given.get("weights_only" if name == "torch.load" else "allow_pickle")
    if name == "torch.load":
        return isinstance(value, ast.Constant) and value.value is True
    return value is None or (isinstance(value, ast.Constant) and value.value is False)


def _folded(node: ast.AST, depth: int = 0) -> str | None:
    """The constant string that ``node`` is, put together where it comes in pieces; ``None`` where it isn't one."""
    if depth > _FOLD_DEPTH:
        return None
    text: str | None = None
    if isinstance(node, ast.Constant):
        text = node.value if isinstance(node.value, str) else None
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _folded(node.left, depth + 1), _folded(node.right, depth + 1)
        text = left + right if left is not None and right is not None else None
    elif isinstance(node, ast.JoinedStr | ast.List | ast.Tuple):
        pieces = [_folded(piece, depth + 1) for piece in (node.values if isinstance(node, ast.JoinedStr) else node.elts)]
        text = "".join(piece for piece in pieces if piece is not None) if None not in pieces else None
    elif isinstance(node, ast.FormattedValue):
        text = _folded(node.value, depth + 1)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "join" and len(node.args) == 1:
        text = _folded(node.args[0], depth + 1) if _folded(node.func.value, depth + 1) == "" else None
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "chr" and len(node.args) == 1:
        number = node.args[0]
        if isinstance(number, ast.Constant) and isinstance(number.value, int) and 0 <= number.value < 0x110000:
            text = chr(number.value)
    elif isinstance(node, ast.Subscript) and ast.dump(node.slice) == _REVERSED:
        inner = _folded(node.value, depth + 1)
        text = inner[::-1] if inner is not None else None
    return text if text is None or len(text) <= _MAX_FOLDED else None


_REVERSED = ast.dump(ast.parse("x[::-1]", mode="eval").body.slice)  # type: ignore[attr-defined]  # an Expression's body is that one


def _with_scopes(tree: ast.Module) -> Iterator[tuple[ast.AST, Scope]]:
    """Every node, with the function that it belongs to: the outermost one, by its name in the module (``f``, ``Class.method``)."""
    pending: list[tuple[ast.AST, Scope, str]] = [(node, "", "") for node in reversed(tree.body)]
    while pending:
        node, scope, prefix = pending.pop()
        yield node, scope
        if isinstance(node, ast.If) and _is_main_guard(node.test):
            pending += [(child, _MAIN, prefix) for child in node.body]
            pending += [(child, scope, prefix) for child in node.orelse]
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            body = node.body if isinstance(node.body, list) else [node.body]
            name = f"{prefix}{getattr(node, 'name', '<lambda>')}"
            pending += [(child, scope or name, prefix) for child in body]
            inside = set(map(id, body))
            pending += [(child, scope, prefix) for child in ast.iter_child_nodes(node) if id(child) not in inside]
        elif isinstance(node, ast.ClassDef):
            pending += [(child, scope, f"{prefix}{node.name}.") for child in ast.iter_child_nodes(node)]
        else:
            pending += [(child, scope, prefix) for child in ast.iter_child_nodes(node)]


def _is_main_guard(test: ast.expr) -> bool:
    return (
        isinstance(test, ast.Compare)
        and isinstance(test.left, ast.Name)
        and test.left.id == "__name__"
        and len(test.comparators) == 1
        and isinstance(test.ops[0], ast.Eq)
        and isinstance(test.comparators[0], ast.Constant)
        and test.comparators[0].value == _MAIN
    )
