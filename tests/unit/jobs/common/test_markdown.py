"""Pages that jobs leave behind."""

import jinja2
import pytest

from jobs.common.markdown import render, table


def test_tables_show_fractions_and_gaps():
    assert table([{"a|b": 0.68254, "c": None, "d": "x|y"}]).splitlines() == [
        "| a|b | c | d |",
        "| --- | --- | --- |",
        "| 0.683 | – | x\\|y |",
    ]


def test_a_report_has_its_table_and_its_definitions():
    values = {"rows": [{"f1": 0.5}], "notes": "\n  f1  of words\n", "page": "report.html"}
    text = render("evaluate/report.md.j2", title="Answers", **values)
    assert text == (
        "# Answers\n\n| f1 |\n| --- |\n| 0.500 |\n\n```\nf1  of words\n```\n\n[In pictures](report.html)\n"
    )


def test_a_value_that_a_template_names_must_be_given():
    with pytest.raises(jinja2.UndefinedError, match="notes"):
        render("evaluate/report.md.j2", title="Answers", rows=[{"f1": 0.5}])
