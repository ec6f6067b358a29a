"""JUnit: the verdicts of a check as XML, which CI systems show beside a merge request."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from penjing.printable import in_a_line
from penjing.tools.check.check import Checked

HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
FORBIDDEN = re.compile("[\ufffe\uffff]")
"""Characters that XML doesn't allow, beside those that `in_a_line` replaces."""


def junit(checked: Checked) -> str:
    """The document: a test case for each rule, in the class of its file.

    >>> print(junit(Checked(())))
    <?xml version="1.0" encoding="UTF-8"?>
    <testsuites tests="0" failures="0" errors="0">
      <testsuite name="penjing check" tests="0" failures="0" errors="0" />
    </testsuites>
    <BLANKLINE>
    """
    counts = {"tests": str(len(checked.verdicts)), "failures": str(len(checked.broken))}
    counts["errors"] = "0"
    root = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(root, "testsuite", {"name": "penjing check", **counts})
    for verdict in checked.verdicts:
        about = {"classname": _plain(verdict.file), "name": verdict.rule}
        case = ElementTree.SubElement(suite, "testcase", about)
        line = _plain(verdict.line)
        if verdict.kept:
            ElementTree.SubElement(case, "system-out").text = line
        else:
            failure = ElementTree.SubElement(case, "failure", {"message": line, "type": "broken"})
            failure.text = line
    ElementTree.indent(root)
    return f"{HEAD}{ElementTree.tostring(root, 'unicode')}\n"


def _plain(text: str) -> str:
    """The text in one line, of characters that XML allows."""
    return FORBIDDEN.sub("?", in_a_line(text))
