"""What is generated while the site is built: figures and reference.

The figures are copied from ``experiments/results``, and the API reference follows the
package's modules.
"""

import pathlib

import mkdocs_gen_files as site

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "experiments" / "results"


def copy_figures() -> None:
    """Every committed figure, as ``figures/STUDY/NAME``."""
    for path in sorted(RESULTS.rglob("*")):
        if path.suffix in (".svg", ".png"):
            with site.open(f"figures/{path.relative_to(RESULTS)}", "wb") as file:
                file.write(path.read_bytes())


def write_reference() -> None:
    """A page for each package, with the docstrings of its modules."""
    index = ["# API reference\n"]
    for package in sorted(path.parent for path in ROOT.glob("cnn_jax/*/__init__.py")):
        name = f"cnn_jax.{package.name}"
        lines = [f"# {name}\n", f"::: {name}\n    options:\n      members: false\n"]
        for module in sorted(package.glob("*.py")):
            if not module.stem.startswith("_"):
                lines.append(f"::: {name}.{module.stem}\n")
        with site.open(f"reference/{package.name}.md", "w") as page:
            page.write("\n".join(lines))
        index.append(f"- [`{name}`]({package.name}.md)")
    with site.open("reference/index.md", "w") as page:
        page.write("\n".join(index))


def link_figures() -> None:
    """Let the pages show the copies; their links lead to ``experiments/results``."""
    for path in (ROOT / "docs").rglob("*.md"):
        text = path.read_text(encoding="utf-8")
        with site.open(str(path.relative_to(ROOT / "docs")), "w") as page:
            page.write(text.replace("../experiments/results/", "figures/"))


copy_figures()
link_figures()
write_reference()
