"""A number that identifies the C++ files, by which a stale extension is recognised.

`git pull` changes the files without compiling them. `setup.py` therefore compiles this
number in, and `extension.py` compares it with the files that are there. Only Python's
own library is imported, because nothing else is installed when `setup.py` runs.
"""

import hashlib
import pathlib

# The macro that the C++ files expect, and the name under which they export its value.
MACRO = "CNN_JAX_SOURCES"
SYMBOL = "cnn_jax_sources"


def digest(folder: pathlib.Path) -> int | None:
    """64 bits of a checksum over the C++ files in a folder.

    Args:
      folder: the folder; an installed wheel has only the compiled file there.

    Returns:
      The number, or None without such files.
    """
    # Editors and file systems keep hidden files beside those that they change.
    files = sorted(
        file
        for file in folder.glob("[!.]*")
        if file.suffix in (".cc", ".h") and file.is_file()
    )
    if not files:
        return None
    # Each file by a checksum of its own, so that no content passes for a name.
    lines = [f"{file.name} {_checksum(file.read_bytes())}" for file in files]
    return int(_checksum("\n".join(lines).encode())[:16], 16)


def macro(folder: pathlib.Path) -> tuple[str, str]:
    """Name and value of the macro to compile the C++ files in a folder with.

    Raises:
      FileNotFoundError: there are none.
    """
    number = digest(folder)
    if number is None:
        raise FileNotFoundError(f"{folder} contains no C++ files")
    return MACRO, f"0x{number:016x}u"


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
