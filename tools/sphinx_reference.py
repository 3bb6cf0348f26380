"""A Sphinx extension: what book/api.md says of a module, and a link to each "Often said" box.

`.. reference:: transformer_lit.attention` lists every public name of that module, in the order of
the file. The docstrings come through autodoc and napoleon. The signatures are those of the source
text: autodoc would write out every alias and every module name of a jaxtyping shape. `[source]`
behind a name leads to its lines on GitHub.

A box has no address of its own. Here each gets one, made of its title, so that book/measured.md can
link to it as to a heading: `04-self-attention.ipynb#often-said-...`.
"""

import ast
import functools
import pathlib
import re
import sys

from docutils import nodes, statemachine
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

ROOT = pathlib.Path(__file__).resolve().parent.parent
SPECIAL = ("__call__", "__contains__", "__len__")  # what a reader may call without seeing it
LONGEST = 88  # characters of a constant's value
CHAPTER = re.compile(r"^Chapter: \S+/book/((\d\d)-\S+)\.html$")


def file_of(module: str) -> pathlib.Path:
    """The file of a module, given as `transformer_lit.attention`."""
    path = ROOT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@functools.cache
def definitions(module: str) -> dict[str, ast.stmt]:
    """The public names of a module and, as `Class.method`, of its classes: what defines each."""
    found: dict[str, ast.stmt] = {}
    for statement in ast.parse(file_of(module).read_text(encoding="utf-8")).body:
        for name in names(statement):
            if not name.startswith("_"):
                found[name] = statement  # of two, the one that stays
        if isinstance(statement, ast.ClassDef):
            for inner in statement.body:
                if isinstance(inner, ast.FunctionDef):
                    found[f"{statement.name}.{inner.name}"] = inner
    return {name: what for name, what in found.items() if not name.startswith("_")}


def names(statement: ast.stmt) -> list[str]:
    """The names that a statement at the top of a module defines; imports define none."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.AnnAssign):
        return [ast.unparse(statement.target)]
    if isinstance(statement, ast.Assign):
        targets = statement.targets[0]
        parts = targets.elts if isinstance(targets, ast.Tuple) else [targets]
        return [ast.unparse(part) for part in parts]
    return []


@functools.cache
def imports(module: str) -> dict[str, str]:
    """Names that a module takes from others of the package, and their full names there."""
    found = {}
    for statement in ast.parse(file_of(module).read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.ImportFrom) and statement.module.startswith("transformer_lit"):
            for alias in statement.names:
                found[alias.asname or alias.name] = f"{statement.module}.{alias.name}"
    return found


class Linked(ast.NodeTransformer):
    """Write `Mask` as `~transformer_lit.attention.Mask`: Sphinx shows the first and links it."""

    def __init__(self, module: str):
        own = {name: f"{module}.{name}" for name in definitions(module) if "." not in name}
        self.full = own | imports(module)

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """Replace a name of the package."""
        if node.id not in self.full:
            return node
        return ast.UnaryOp(ast.Invert(), ast.parse(self.full[node.id], mode="eval").body)

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        """Leave out the space before a single axis, which is there for linters only."""
        return ast.Constant(node.value.strip() if isinstance(node.value, str) else node.value)


def annotation(module: str, node: ast.expr | None) -> ast.expr | None:
    """An annotation with its links; one in quotes that is a name loses them."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
        node = ast.Name(node.value)
    return node and Linked(module).visit(ast.parse(ast.unparse(node), mode="eval").body)


def signature(module: str, what: ast.FunctionDef, *, bound: bool) -> tuple[str, str | None]:
    """The arguments of a function as its source has them, and what it returns."""
    arguments = ast.parse(f"def f({ast.unparse(what.args)}): pass").body[0].args
    if bound:
        arguments.args = arguments.args[1:]
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    for argument in every:
        argument.annotation = annotation(module, argument.annotation)
    returns = annotation(module, what.returns)
    return f"({ast.unparse(arguments)})", returns and ast.unparse(returns)


def fields(what: ast.ClassDef) -> list[ast.AnnAssign]:
    """The fields of a dataclass or a NamedTuple."""
    bases = {ast.unparse(base) for base in what.bases}
    is_data = any("dataclass" in ast.unparse(one) for one in what.decorator_list)
    annotated = [line for line in what.body if isinstance(line, ast.AnnAssign)]
    return annotated if is_data or "NamedTuple" in bases else []


def class_signature(module: str, what: ast.ClassDef) -> str:
    """The arguments a class is made with."""
    for inner in what.body:
        if isinstance(inner, ast.FunctionDef) and inner.name == "__init__":
            return signature(module, inner, bound=True)[0]
    given = []
    for field in fields(what):
        text = f"{ast.unparse(field.target)}: "
        text += ast.unparse(annotation(module, field.annotation))
        given.append(text + (f" = {ast.unparse(field.value)}" if field.value else ""))
    return f"({', '.join(given)})"


# --- what autodoc is told --------------------------------------------------------------------


def split(full_name: str) -> tuple[str, str]:
    """`transformer_lit.attention.SelfAttention.forward` as its module and the rest."""
    parts = full_name.split(".")
    for end in range(len(parts), 0, -1):
        if file_of(".".join(parts[:end])).is_file():
            return ".".join(parts[:end]), ".".join(parts[end:])
    raise ValueError(f"{full_name} lies in no module of the package")


def source_signature(app, what, name, obj, options, arguments, returns):
    """Give autodoc the signature that stands in the source."""
    module, inside = split(name)
    found = definitions(module).get(inside)
    if isinstance(found, ast.ClassDef):
        return class_signature(module, found), None
    if isinstance(found, ast.FunctionDef):
        decorators = {ast.unparse(one) for one in found.decorator_list}
        return signature(module, found, bound="." in inside and "staticmethod" not in decorators)
    return None


def comments(module: str, what: ast.stmt) -> str:
    """The comment at the end of a statement's last line, or nothing."""
    line = file_of(module).read_text(encoding="utf-8").splitlines()[what.end_lineno - 1]
    comment = line[what.end_col_offset :].lstrip(" ,")
    text = comment.removeprefix("# ") if comment.startswith("# ") else ""
    return "" if text.startswith(("noqa", "fmt:")) else text


def mend_docstring(app, what, name, obj, options, lines):
    """Link a module to its chapter, and say of fields what the comments behind them say."""
    module, inside = split(name)
    if what == "module":
        for i, line in enumerate(lines):
            if match := CHAPTER.match(line):
                lines[i] = f"Chapter {match[2]}: :doc:`/book/{match[1]}`\n"
            elif i and lines[i - 1].startswith("Paper") and line.startswith("    "):
                lines[i] = f"{lines[i - 1]} {line.strip()}"  # else a term and its definition
                lines[i - 1] = ""
        lines[:] = "\n".join(lines).splitlines()
    elif what == "class" and not any(line in ("Args:", "Attributes:") for line in lines):
        said = {ast.unparse(f.target): comments(module, f) for f in fields_of(module, inside)}
        if any(said.values()):
            lines += ["", "Args:", *(f"    {name}: {text}." for name, text in said.items() if text)]
            lines += [""]


def fields_of(module: str, name: str) -> list[ast.AnnAssign]:
    """The fields of a class of a module."""
    found = definitions(module).get(name)
    return fields(found) if isinstance(found, ast.ClassDef) else []


class Reference(SphinxDirective):
    """`.. reference:: transformer_lit.attention`: every public name of that module."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """List the names in the order of the file."""
        module = self.arguments[0]
        self.env.note_dependency(str(file_of(module)))
        found = definitions(module)
        lines = [f".. automodule:: {module}", ""]
        for name, what in found.items():
            if "." in name:
                continue
            if isinstance(what, ast.FunctionDef):
                lines += [f".. autofunction:: {module}.{name}", ""]
            elif isinstance(what, ast.ClassDef):
                lines += [f".. autoclass:: {module}.{name}", ""]
                for inner in found:
                    member = inner.removeprefix(f"{name}.")
                    if inner == member or (member.startswith("_") and member not in SPECIAL):
                        continue
                    is_property = "property" in {
                        ast.unparse(one) for one in found[inner].decorator_list
                    }
                    kind = "autoproperty" if is_property else "automethod"
                    lines += [f"   .. {kind}:: {module}.{inner}", ""]
            else:
                lines += self.constant(module, name, what)
        container = nodes.Element()
        content = statemachine.StringList(lines, source=self.get_source_info()[0])
        self.state.nested_parse(content, self.content_offset, container)
        return container.children

    def constant(self, module: str, name: str, what: ast.Assign | ast.AnnAssign) -> list[str]:
        """A name for a value or a type, with the value as the source has it."""
        value = what.value
        if isinstance(what, ast.Assign) and isinstance(what.targets[0], ast.Tuple):
            value = value.elts[names(what).index(name)]
        lines = [f".. py:data:: {name}", f"   :module: {module}"]
        if isinstance(value, ast.Subscript):  # a type
            text = ast.unparse(annotation(module, value))
            lines = [f".. py:type:: {name}", lines[1], f"   :canonical: {text}", ""]
        else:
            text = ast.unparse(value)
            if len(text) > LONGEST:
                text = text[: LONGEST - 4].rsplit(" ", 1)[0] + " ..."
            lines += [f"   :value: {text}", ""]
        comment = comments(module, what)
        return lines + ([f"   {comment}", ""] if comment else [])


# --- links -----------------------------------------------------------------------------------


def address_of_source(repository: str, info: dict[str, str]) -> str | None:
    """Where the lines of a name stand on GitHub."""
    what = definitions(info["module"]).get(info["fullname"])
    if what is None:
        return None
    path = file_of(info["module"]).relative_to(ROOT).as_posix()
    first = min([what.lineno, *(one.lineno for one in getattr(what, "decorator_list", []))])
    return f"{repository}/blob/main/{path}#L{first}-L{what.end_lineno}"


def find_type(app, env, node, content):
    """Lead from a signature to a name for a type, where Sphinx looks for classes only."""
    found = env.domains["py"].objects.get(node.get("reftarget"))
    if node.get("refdomain") != "py" or found is None:
        return None
    here = node.get("refdoc", env.docname)
    return make_refnode(app.builder, here, found.docname, found.node_id, content)


def give_boxes_addresses(app, doctree):
    """Let each "Often said" box be linked to, as MyST lets headings be."""
    for box in doctree.findall(nodes.admonition):
        title = box[0].astext()
        if title.startswith("Often said: "):
            slug = nodes.make_id(title)
            box["ids"].append(slug)
            slugs = app.env.metadata[app.env.docname].setdefault("myst_slugs", {})
            slugs[slug] = (box.line, slug, title)


def configure(app, config):
    """Set what a YAML file cannot say."""
    repository = config.html_theme_options["repository_url"]
    config.linkcode_resolve = lambda domain, info: address_of_source(repository, info)


def setup(app):
    """Called by Sphinx."""
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))  # this package, not another copy that is installed
    for extension in ("autodoc", "napoleon", "linkcode"):
        app.setup_extension(f"sphinx.ext.{extension}")
    app.add_directive("reference", Reference)
    app.connect("config-inited", configure)
    app.connect("autodoc-process-signature", source_signature)
    app.connect("autodoc-process-docstring", mend_docstring, priority=400)  # before napoleon
    app.connect("missing-reference", find_type)
    app.connect("doctree-read", give_boxes_addresses)
    return {"parallel_read_safe": True}
