"""JUnit: the verdicts of a check as XML, which CI systems show beside a merge request."""

from __future__ import annotations

from xml.etree import ElementTree

from penjing.printable import in_a_line
from penjing.tools.check.check import Checked


def junit(checked: Checked) -> str:
    """The document: a test case for each rule, in the class of its file.

    >>> print(junit(Checked(())).splitlines()[1])
    <testsuites tests="0" failures="0" errors="0">
    """
    counts = {"tests": str(len(checked.verdicts)), "failures": str(len(checked.broken))}
    counts["errors"] = "0"
    root = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(root, "testsuite", {"name": "penjing check", **counts})
    for verdict in checked.verdicts:
        about = {"classname": in_a_line(verdict.file), "name": verdict.rule}
        case = ElementTree.SubElement(suite, "testcase", about)
        line = in_a_line(verdict.line)
        if verdict.kept:
            ElementTree.SubElement(case, "system-out").text = line
        else:
            failure = ElementTree.SubElement(case, "failure", {"message": line, "type": "broken"})
            failure.text = line
    ElementTree.indent(root)
    return ElementTree.tostring(root, "unicode", xml_declaration=False).join(
        ('<?xml version="1.0" encoding="UTF-8"?>\n', "\n")
    )
