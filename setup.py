"""The compiled extension, `cnn_jax/kernels/*.cc`; all else is in setup.cfg.

It is built where there is oneDNN for the processor and a C++17 compiler, and skipped
silently elsewhere: XLA computes convolutions then.
"""

import importlib.metadata
import importlib.util
import pathlib
import runpy

import setuptools

KERNELS = pathlib.Path("cnn_jax/kernels")


def folder_of(distribution: str, file: str) -> str:
    """Where a file of an installed distribution is, found by the end of its path."""
    for found in importlib.metadata.files(distribution) or ():
        if found.as_posix().endswith(file):
            path = pathlib.Path(found.locate()).resolve()
            return str(path.parents[file.count("/")])
    raise importlib.metadata.PackageNotFoundError(f"{file} of {distribution}")


def extensions() -> list[setuptools.Extension]:
    """The extension, if its requirements are installed."""
    jaxlib = importlib.util.find_spec("jaxlib")
    if jaxlib is None or jaxlib.origin is None:
        return []
    try:
        headers = folder_of("onednn-devel-cpu-gomp", "oneapi/dnnl/dnnl.hpp")
        library = folder_of("onednn-cpu-gomp", "libdnnl.so.3")
    except importlib.metadata.PackageNotFoundError:
        return []
    theirs = [headers, str(pathlib.Path(jaxlib.origin).parent / "include")]
    return [
        setuptools.Extension(
            "cnn_jax.kernels._onednn",
            [str(KERNELS / name) for name in ("onednn.cc", "pooling.cc")],
            depends=[str(KERNELS / "threads.h")],
            # By path, because importing the package would import jax.
            define_macros=[
                runpy.run_path(str(KERNELS / "sources.py"))["macro"](KERNELS)
            ],
            extra_compile_args=[
                *("-std=c++17", "-O2", "-Wall", "-Wextra", "-fvisibility=hidden"),
                *(f"-isystem{folder}" for folder in theirs),
            ],
            # By name, without a path: the package loads the library first.
            extra_link_args=[f"-L{library}", "-l:libdnnl.so.3", "-lgomp", "-pthread"],
            language="c++",
            optional=True,
            py_limited_api=True,  # it does not use Python's API
        )
    ]


setuptools.setup(ext_modules=extensions())
