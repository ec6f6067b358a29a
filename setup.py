"""Besides what pyproject.toml says: a wheel holds the examples, for `penjing init` to copy."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithExamples(build_py):
    """Copies `examples/*.py` into the package; in a clone they are used where they are."""

    def run(self) -> None:
        """Build the package, then copy them."""
        super().run()
        if not self.editable_mode:
            folder = Path(self.build_lib, "penjing", "examples")
            folder.mkdir(parents=True, exist_ok=True)
            for example in Path("examples").glob("*.py"):
                self.copy_file(str(example), str(folder / example.name))


setup(cmdclass={"build_py": WithExamples})
