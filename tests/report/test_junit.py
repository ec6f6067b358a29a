"""JUnit: what a check found, as CI systems read it."""

from __future__ import annotations

from xml.etree import ElementTree

from penjing.report.junit import junit
from penjing.tools.check.check import Checked, Verdict

KEPT = Verdict("a.onnx", "max_kb", 200, True, 1200, "has 1,200 bytes")
BROKEN = Verdict("b <&\x1b\ufffe\ud800>.onnx", "no_operators_on", ["cpu"], False, 1, "has 1\nthere")


def test_each_rule_is_a_case_and_each_broken_one_a_failure_with_its_line() -> None:
    document = junit(Checked((KEPT, BROKEN)))
    assert document.startswith('<?xml version="1.0" encoding="UTF-8"?>\n')
    root = ElementTree.fromstring(document.encode())
    assert root.tag == "testsuites"
    (suite,) = root
    for element in (root, suite):
        assert {key: element.get(key) for key in ("tests", "failures", "errors")} == {
            "tests": "2", "failures": "1", "errors": "0",
        }  # fmt: skip
    good, bad = suite
    assert (good.get("classname"), good.get("name")) == ("a.onnx", "max_kb")
    assert good.find("failure") is None
    assert good.findtext("system-out") == KEPT.line
    failure = bad.find("failure")
    assert failure is not None
    line = str(failure.get("message"))
    assert line == failure.text
    assert line.startswith("BROKEN  b <&")
    assert line.endswith('no_operators_on = ["cpu"]: has 1\\nthere')


def test_without_a_broken_rule_there_is_no_failure() -> None:
    root = ElementTree.fromstring(junit(Checked((KEPT,))))
    assert root.get("failures") == "0"
    assert not list(root.iter("failure"))
