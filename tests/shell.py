"""The real command line, in a folder of its own."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Shell:
    """The command line in a folder of its own."""

    folder: Path
    call: Callable[..., tuple[int, str, str]]

    def fails(self, *words: str) -> str:
        """The one line that the command ends with."""
        before = self.files()
        code, _, err = self.call(*words)
        assert code == 2, err
        assert err.count("\n") == 1
        assert err.startswith("newcomer: ")
        assert self.files() == before  # nothing half-written remains
        return err.strip()

    def files(self) -> dict[str, bytes]:
        found = {str(p.relative_to(self.folder)): p.read_bytes() for p in self.folder.rglob("*") if p.is_file()}
        return {name: content for name, content in found.items() if not name.endswith(".lock")}
