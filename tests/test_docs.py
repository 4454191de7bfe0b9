"""Every ```python block of the README and of the documentation runs, in order, one namespace per page."""

import re
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]

FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,})(?P<language>[\w+-]*)")
NOT_EXECUTED = re.compile(r"^\s*<!-- not executed: \S.* -->\s*$")
PYTHON_BY_ANOTHER_NAME = {"py", "python3", "py3", "Python"}  # would never be executed


@dataclass(frozen=True)
class Block:
    """One fenced block: its first line (counted from 1), its language, its code, and whether it runs."""

    line: int
    language: str
    code: str
    executed: bool


def fenced_blocks(text: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    blocks = []
    lines = text.splitlines()
    previous = ""  # the last line with text on it, before the fence
    index = 0
    while index < len(lines):
        opening = FENCE.match(lines[index])
        if opening is None:
            previous = lines[index] if lines[index].strip() else previous
            index += 1
            continue
        indent, ticks = opening["indent"], opening["ticks"]
        first = index + 1
        last = first
        while lines[last].strip() != ticks:
            last += 1
        code = "\n".join(line.removeprefix(indent) for line in lines[first:last])
        blocks.append(Block(first + 1, opening["language"], code, not NOT_EXECUTED.match(previous)))
        previous = lines[last]
        index = last + 1
    return blocks


PAGE = """\
text
```python
a = 1

b = 2
```
<!-- not executed: needs a GPU -->
```python
x
```
<!-- not executed: -->

  ```python
  if a:
    b
  ```
```text
```
"""


def test_blocks_are_found_with_their_lines_and_marks() -> None:
    assert fenced_blocks(PAGE) == [
        Block(3, "python", "a = 1\n\nb = 2", True),
        Block(9, "python", "x", False),
        Block(14, "python", "if a:\n  b", True),  # a mark without a reason does not count
        Block(18, "text", "", True),
    ]


def failure_of(block: Block, page: Path, namespace: dict[str, Any]) -> str | None:
    """Runs a block; the traceback, in lines of the page, if it fails."""
    padded = "\n" * (block.line - 1) + block.code
    try:
        exec(compile(padded, str(page), "exec"), namespace)
    except Exception as error:
        here = error.__traceback__
        return "".join(traceback.format_exception(error.with_traceback(here and here.tb_next)))
    return None


def test_a_failing_block_names_its_file_and_line() -> None:
    failure = failure_of(Block(7, "python", "a = 1\n1 / 0", True), Path("page.md"), {})
    assert failure is not None
    assert 'File "page.md", line 8' in failure and "ZeroDivisionError" in failure


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in fenced_blocks(page.read_text(encoding="utf-8")):
        place = f"{page.relative_to(REPOSITORY)}:{block.line}"
        assert block.language not in PYTHON_BY_ANOTHER_NAME, f"{place}: write ```python"
        if block.language == "python" and block.executed:
            failure = failure_of(block, page, namespace)
            if failure is not None:
                pytest.fail(f"the block at {place} failed\n{failure}", pytrace=False)


def test_docstrings_are_written_so_that_the_reference_pages_can_show_them() -> None:
    unreadable = re.compile(r"^\s*Example:$|:(func|meth|class|mod|attr):`")
    found = [
        f"{path.relative_to(REPOSITORY)}:{number}: {line.strip()}"
        for path in sorted((REPOSITORY / "multiresnet").rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if unreadable.search(line)
    ]
    assert not found, "write `Examples:`, and plain `name` for references\n" + "\n".join(found)
