"""Files that are written whole or not at all."""

import os
import pathlib
import uuid


def write_whole(path: str | os.PathLike, content: str | bytes) -> None:
    """Writes a file so that whoever reads it finds the old content or all of the new, even after a cut of power.

    Args:
      path: where; folders above it are made.
      content: text, written as UTF-8, or bytes.

    Raises:
      OSError: it could not be written; what stood there before still does, and nothing is left beside it.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Hidden and of its own name, so that two writers cannot meet in it and no pattern of readers finds it.
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with open(part, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
